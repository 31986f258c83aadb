-- What only this node keeps beside the rows that it shares with its peers.

-- The configuration that was found to hold last. It is in force while the shared cells, merged
-- from several nodes, do not hold together.
CREATE TABLE good_cell (
  -- `setting/policy.hold`, `domain/example.com/policy`.
  cell TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Order and subject of the lines in the shared rows of kind `change` and `audit`.
CREATE TABLE line (
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  about TEXT NOT NULL,
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX line_about ON line (kind, about, id);

-- Held mail of all nodes, as the shared rows of kind `held` say it.
CREATE TABLE held (
  id TEXT PRIMARY KEY,
  -- The node that decides about it, and has its sealed file in DIR/held.
  owner TEXT NOT NULL,
  held_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  sender TEXT NOT NULL,
  subject TEXT,
  from_header TEXT,
  -- Lower case of both where SQLite cannot fold them (not ASCII), else null.
  folded_subject TEXT,
  folded_from TEXT,
  client_ip TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  score REAL NOT NULL,
  -- ` RULE RULE `: a space on both sides of each.
  rules TEXT NOT NULL,
  unknown_count INTEGER NOT NULL,
  -- Findings and unknowns as JSON.
  reasons TEXT NOT NULL,
  undecided INTEGER NOT NULL,
  decided_ms INTEGER,
  body_gone_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX held_undecided ON held (owner, expires_ms, undecided) WHERE undecided > 0;
CREATE INDEX held_decided ON held (owner, decided_ms) WHERE undecided = 0;

-- A held recipient and its claim: made once, the first one wins.
CREATE TABLE held_copy (
  id TEXT NOT NULL,
  place INTEGER NOT NULL,
  address TEXT NOT NULL,
  kind TEXT CHECK (kind IN ('release', 'delete', 'expire')),
  decided_by TEXT,
  decided_ms INTEGER,
  enqueued_ms INTEGER,
  PRIMARY KEY (id, place),
  CHECK ((kind IS NULL) = (decided_ms IS NULL) AND (kind IS NULL) = (decided_by IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX held_copy_pending ON held_copy (id) WHERE kind = 'release' AND enqueued_ms IS NULL;

-- Clicks that wait for the owner of a message, as the shared rows of kind `pending` say it.
CREATE TABLE held_pending (
  id TEXT NOT NULL,
  place INTEGER NOT NULL,
  key TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  asked_by TEXT NOT NULL,
  asked_ms INTEGER NOT NULL,
  -- Only this node runs it.
  addressee TEXT NOT NULL,
  stamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX held_pending_of ON held_pending (id, place);
