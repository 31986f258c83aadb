-- Held mail has two holders, and another owner when the first one is gone.
-- `term` grows with each owner. `holders`: ` NODE NODE `, the other nodes that have the body, and in
-- `perhaps` those that may have it. `doubt_ms`: taken over although it may have been released since.
ALTER TABLE held ADD COLUMN term INTEGER NOT NULL DEFAULT 1;
ALTER TABLE held ADD COLUMN holders TEXT NOT NULL DEFAULT '';
ALTER TABLE held ADD COLUMN perhaps TEXT NOT NULL DEFAULT '';
ALTER TABLE held ADD COLUMN doubt_ms INTEGER;
CREATE INDEX held_bodies ON held (owner, id) WHERE body_gone_ms IS NULL;

-- `claimed` or `sent`: not a click but what a former owner had decided, or done; null: a click.
ALTER TABLE held_pending ADD COLUMN former TEXT;

-- Claims of this node that the row of the next owner does not know: told to it, then removed. On no
-- other node.
CREATE TABLE held_former (
  id TEXT NOT NULL,
  place INTEGER NOT NULL,
  kind TEXT NOT NULL,
  decided_by TEXT NOT NULL,
  decided_ms INTEGER NOT NULL,
  -- 1: it went into the queue here.
  sent INTEGER NOT NULL,
  PRIMARY KEY (id, place)
) STRICT, WITHOUT ROWID;
