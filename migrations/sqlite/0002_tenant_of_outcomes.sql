-- Whose record it was; NULL for outcomes written before they said so.
ALTER TABLE outcomes ADD COLUMN tenant_id TEXT;
