-- What became of messages that more than one node has owned, for one that comes back and asks. Of
-- this node alone: never replicated. `states` are those of the recipients, in order, with commas.
CREATE TABLE fate (
  id TEXT PRIMARY KEY,
  term INTEGER NOT NULL,
  owner TEXT NOT NULL,
  states TEXT NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX fate_at ON fate (at_ms);
