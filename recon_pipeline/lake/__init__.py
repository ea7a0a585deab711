"""Event sums of files on object storage, computed by an engine that is made for it; knows no billing database."""
