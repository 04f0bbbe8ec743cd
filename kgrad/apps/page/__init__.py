"""The Streamlit app, `kgrad app`. It needs streamlit, the extra `app`."""
