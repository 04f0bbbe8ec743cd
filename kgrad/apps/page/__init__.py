"""The Streamlit app, `kgrad app`. It needs streamlit and plotly: `pip install "kgrad[app]"`."""
