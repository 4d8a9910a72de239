-- 1 where the event that caused it was more than 24 hours old on receipt: true of the person, but nothing was started by it.
ALTER TABLE membership_history ADD COLUMN late INTEGER NOT NULL DEFAULT 0;
