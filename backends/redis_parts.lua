-- Some of the parts of a complete header, in its order.
-- ARGV: what the chord's keys begin with, the place of the first part, how many parts and how many bytes, about.
-- Answer: nothing when the header was taken; otherwise the number of parts, the place after the last one here, the stored tree of the
-- results (with the first part), the parts.
local call, key, at, most, bytes = redis.call, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local size = tonumber(call('GET', key .. '.s') or '')
if not size then return false end
local j, parts = key .. '.j', {}
local list = call('TYPE', j)['ok'] == 'list'
-- A list may end in a part that has returned once more since.
local n = list and math.min(call('LLEN', j), size + (tonumber(call('GET', key .. '.t') or '') or 0)) or call('ZCARD', j)
local tree = at == 0 and call('GET', key)
while at < n and #parts < most and bytes > 0 do
  local last = math.min(at + 9, n - 1)
  for _, m in ipairs(call(list and 'LRANGE' or 'ZRANGE', j, at, last)) do
    parts[#parts + 1] = m
    bytes = bytes - #m
  end
  at = last + 1
end
return {n, at, tree, parts}
