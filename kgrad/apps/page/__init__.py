"""The Streamlit app, `kgrad app`. It needs streamlit: `pip install "kgrad[app]"`."""
