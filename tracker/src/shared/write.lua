-- Writes what a node said, unless the store has later words of it, and tells the other trackers.
-- KEYS: the node, the index of nodes.
-- ARGV: id, version, base, lease in ms, channel, message, head ('' for a goodbye), number of holdings, each with its state, and
-- each that is gone. Returns 1: written, 0: older than what is here, -1: made from another version than the one that is here.
local function expect(key, kind)
  local found = redis.call('TYPE', key)['ok']
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
expect(KEYS[1], 'hash')
expect(KEYS[2], 'zset')
local known = tonumber(redis.call('HGET', KEYS[1], 'version') or '0') or 0
local version, base, lease = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if known >= version and known <= 9007199254740991 then return 0 end
if base ~= 0 and base ~= known then return -1 end
if base == 0 then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'version', ARGV[2])
if ARGV[7] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[1], 'head', ARGV[7])
  local last = 8 + 2 * tonumber(ARGV[8])
  for at = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[at]) end
  for at = 9, last, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + lease, ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], lease)
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1
