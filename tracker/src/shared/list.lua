-- The ids of nodes whose lease is good, from the one at a place on. Others are taken out of the index.
-- KEYS: the index. ARGV: the place, how many, the longest id. Returns how many there are, and those that can be ids.
local found = redis.call('TYPE', KEYS[1])['ok']
if found ~= 'zset' and found ~= 'none' then redis.call('DEL', KEYS[1]) end
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
local ids = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)) do
  if #id <= tonumber(ARGV[3]) then ids[#ids + 1] = id end
end
return {redis.call('ZCARD', KEYS[1]), ids}
