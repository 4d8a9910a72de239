-- What a question is recognised by, and whom the link was for by which it was decided.
ALTER TABLE wf_approvals ADD COLUMN shown TEXT;
ALTER TABLE wf_approvals ADD COLUMN decided_link TEXT;
