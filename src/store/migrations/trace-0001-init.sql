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
  -- Where it came in.
  node TEXT NOT NULL,
  -- The higher one of two states of a row wins: wall ms of the change, or one more than before.
  version INTEGER NOT NULL,
  PRIMARY KEY (id, place)
) STRICT, WITHOUT ROWID;

-- A line belongs to the run of a node that wrote it, and to one of its writes.
CREATE TABLE trace_event (
  id TEXT NOT NULL,
  writer TEXT NOT NULL,
  dot INTEGER NOT NULL,
  -- Grows with the time, and is no two times the same for one writer.
  seq INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  recipient TEXT,
  what TEXT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (id, writer, dot, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE judgement (
  id TEXT PRIMARY KEY,
  said TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Which part of which message changed, in the order of application here: places and writes count
-- up by one within a row, and these are its last ones. A part is 50 recipients of a message: one
-- with ten thousand does not fit what a link carries at once.
CREATE TABLE trace_log (
  place INTEGER PRIMARY KEY,
  writer TEXT NOT NULL,
  seq INTEGER NOT NULL,
  -- `id id.1 id`: the part stands behind the dot when it is not the first.
  parts TEXT NOT NULL,
  -- The greatest id of them.
  newest TEXT NOT NULL
) STRICT;

CREATE TABLE trace_vector (
  writer TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far the feed of each peer was read.
CREATE TABLE trace_cursor (
  peer TEXT PRIMARY KEY,
  generation TEXT NOT NULL,
  place INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
