"""The Streamlit app, `python -m kgrad app`. It needs streamlit and plotly: `kgrad[app]`."""
