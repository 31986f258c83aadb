-- What was seen in a message, by a hash of it (store/sightings). By message, so that what is old
-- goes with it; by hash for who looks for something.
CREATE TABLE sighting (
  id TEXT NOT NULL,
  what INTEGER NOT NULL,
  PRIMARY KEY (id, what)
) STRICT, WITHOUT ROWID;

CREATE INDEX sighting_what ON sighting (what);
