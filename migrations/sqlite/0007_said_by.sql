-- Who or what had an address suppressed: an operator, an import, the message that came back.
ALTER TABLE wf_suppressions ADD COLUMN said_by TEXT;
CREATE INDEX wf_suppressions_by_address ON wf_suppressions (tenant_id, address);
