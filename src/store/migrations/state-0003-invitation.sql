-- Tokens that this node issued; only it redeems them, so this table is on no other node. What lets
-- somebody in is derived from the secret of the token, which is nowhere.
CREATE TABLE invitation (
  id TEXT PRIMARY KEY,
  psk BLOB NOT NULL,
  expires_ms INTEGER NOT NULL,
  uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
  failures INTEGER NOT NULL DEFAULT 0,
  -- The name that the new node is given; null: its own.
  name TEXT
) STRICT, WITHOUT ROWID;
