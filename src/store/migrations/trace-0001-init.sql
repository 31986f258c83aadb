-- What happened to every message and recipient. Clustered by message id, which begins with the
-- time: rows are appended, newest first is a scan backwards, and no second index is paid for.
CREATE TABLE trace (
  id TEXT NOT NULL,
  place INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  client_ip TEXT NOT NULL,
  sender TEXT NOT NULL,
  recipient TEXT NOT NULL,
  subject TEXT,
  -- Lower case of the subject where SQLite cannot fold it (not ASCII), else null.
  folded TEXT,
  size_bytes INTEGER NOT NULL,
  score REAL NOT NULL,
  -- ` RULE RULE `: a space on both sides of each.
  rules TEXT NOT NULL,
  unknown_count INTEGER NOT NULL,
  accept TEXT NOT NULL,
  accept_reply TEXT NOT NULL,
  delivery TEXT,
  delivery_reply TEXT,
  delivery_ms INTEGER,
  released_ms INTEGER,
  PRIMARY KEY (id, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE trace_event (
  id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  recipient TEXT,
  what TEXT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE judgement (
  id TEXT PRIMARY KEY,
  said TEXT NOT NULL
) STRICT, WITHOUT ROWID;
