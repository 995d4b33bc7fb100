-- All of a node, unless it is more than can be.
-- KEYS: the node. ARGV: the most fields, the longest name of one, the longest value.
-- Returns its remaining lease in ms and its fields with their values; a lease of -2: there is none, -3: it cannot be.
local found = redis.call('TYPE', KEYS[1])['ok']
if found == 'none' then return {-2, {}} end
if found ~= 'hash' or redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) then return {-3, {}} end
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  if #fields[at] > tonumber(ARGV[2]) or #fields[at + 1] > tonumber(ARGV[3]) then return {-3, {}} end
end
return {redis.call('PTTL', KEYS[1]), fields}
