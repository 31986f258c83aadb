-- Replicated rows: what this node has in common with its peers, in the order it was applied here.

CREATE TABLE shared (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  -- Canonical JSON: equal on every node that has seen the same writes.
  state TEXT NOT NULL,
  -- The only dot of an owned row; null for a cell, whose dots are in its context.
  writer TEXT,
  seq INTEGER,
  stamp INTEGER NOT NULL,
  until_ms INTEGER,
  -- 48 bits of the SHA-256 of name and state.
  hash INTEGER NOT NULL,
  dead INTEGER NOT NULL,
  place INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX shared_place ON shared (place);
CREATE INDEX shared_until ON shared (until_ms) WHERE until_ms IS NOT NULL;
CREATE INDEX shared_dead ON shared (stamp) WHERE dead = 1;

-- Of every writer how much is known here, as far as nothing of it is parked.
CREATE TABLE vector (
  writer TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far the feed of each peer was read.
CREATE TABLE feed_cursor (
  peer TEXT PRIMARY KEY,
  generation TEXT NOT NULL,
  place INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Rows from the future wait here until their time has come.
CREATE TABLE parked (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  state TEXT NOT NULL,
  stamp INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- Writers whose count stands still while something of theirs is parked.
CREATE TABLE frozen (
  writer TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE projection (
  kind TEXT PRIMARY KEY,
  version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a tombstone that was collected had seen: whoever makes the row anew here has seen it too,
-- though another node may still hold it.
CREATE TABLE collected (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  context TEXT NOT NULL,
  stamp INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX collected_stamp ON collected (stamp);
