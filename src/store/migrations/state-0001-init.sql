-- What only this database holds: settings, operators, the decisions about held mail.

-- A setting or a domain. The key is natural (`setting/policy.hold`, `domain/example.com`): the
-- same on every node.
CREATE TABLE cell (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL,
  author TEXT NOT NULL,
  changed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was before and after every change, as JSON; null: the cell was not there.
CREATE TABLE change (
  seq INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  author TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  before TEXT,
  after TEXT
) STRICT;
CREATE INDEX change_of_key ON change (key, seq);

CREATE TABLE operator (
  name TEXT PRIMARY KEY,
  password_hash TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('admin', 'viewer')),
  added_ms INTEGER NOT NULL,
  added_by TEXT NOT NULL,
  last_seen_ms INTEGER
) STRICT, WITHOUT ROWID;

-- The token itself is nowhere: who reads the database cannot enter.
CREATE TABLE session (
  token_hash TEXT PRIMARY KEY,
  operator TEXT NOT NULL REFERENCES operator (name) ON DELETE CASCADE,
  began_ms INTEGER NOT NULL,
  seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  seq INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  author TEXT NOT NULL,
  act TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;

-- Index of the sealed files in DIR/held; rebuilt from them when rows are missing.
CREATE TABLE held (
  id TEXT PRIMARY KEY,
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
CREATE INDEX held_undecided ON held (expires_ms) WHERE undecided > 0;
CREATE INDEX held_decided ON held (decided_ms) WHERE undecided = 0;

-- A held recipient and its claim: made once, the first one wins.
CREATE TABLE held_copy (
  id TEXT NOT NULL REFERENCES held (id) ON DELETE CASCADE,
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
