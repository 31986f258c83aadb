-- What was learnt, as the shared rows of kind `sample` say it: which, and since when. What is
-- learnt of each stays in its row.
CREATE TABLE sample (
  fingerprint TEXT PRIMARY KEY,
  label TEXT NOT NULL CHECK (label IN ('spam', 'ham')),
  learnt_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sample_age ON sample (label, learnt_ms, fingerprint);
