"""The weights that exist, the Hub that is asked for their files, and files of other projects."""
