-- SPDX-License-Identifier: Apache-2.0
-- ROWS is replaced by the test: about 1 MiB in 4000.
PRAGMA journal_mode = MEMORY;
CREATE TABLE item (id INTEGER PRIMARY KEY, owner INTEGER, name TEXT, body TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ROWS)
INSERT INTO item SELECT i, (i * 7919) % 5003, 'name-' || (i * 31337 % 1000003),
    printf('%0200d', i * 77) FROM n;
CREATE TABLE owner (id INTEGER PRIMARY KEY, title TEXT);
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 5002)
INSERT INTO owner SELECT i, 'owner ' || (i * 13 % 5003) FROM n;
CREATE INDEX item_owner ON item(owner);
CREATE INDEX item_name ON item(name);
SELECT count(*), sum(length(body)) FROM item;
SELECT o.title, count(*), min(i.name), max(i.id) FROM owner o JOIN item i ON i.owner = o.id
    GROUP BY o.id ORDER BY count(*) DESC, o.id LIMIT 5;
SELECT count(*) FROM item a JOIN item b ON a.id = b.id + 5003 AND a.owner = b.owner;
UPDATE item SET body = upper(name) || body WHERE id % 5 = 0;
DELETE FROM item WHERE id % 11 = 0;
SELECT count(*), sum(id), sum(length(body)) FROM item;
SELECT name FROM item ORDER BY body DESC, id LIMIT 3;
PRAGMA integrity_check;
