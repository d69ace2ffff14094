"""The encoder that ships with metaindex: where its data comes from, how it is trained, measured and packed. See README.md."""
