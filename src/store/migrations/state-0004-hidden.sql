-- What is forgotten stays in its place as a hidden tombstone (dead = 2), for whoever comes with an
-- older version of it.
DROP TABLE collected;
CREATE INDEX shared_hidden ON shared (stamp) WHERE dead = 2;
