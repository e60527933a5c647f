-- ARGV: unacked, index, parked mark, from rank, to rank. Answer: how many were there, then triples: queue as JSON or text
-- ("p" or "h" before it), as each entry names it.
local tags = redis.call('ZRANGE', ARGV[2], ARGV[4], ARGV[5])
local counts, out = {}, {#tags}
for _, tag in ipairs(tags) do
  local name
  if tag:sub(1, #ARGV[3]) == ARGV[3] then name = 'p' .. (tag:match('^[^:]*:%d+:[^:]*:%d+:(.*)$') or '')
  else
    -- The last string of the entry: apium writes the queue there, kombu the routing key, which mostly is the queue.
    local entry = redis.call('HGET', ARGV[1], tag)
    local json = entry and entry:sub(-1024):match('.*,%s*("[^\n]*")%]$')
    local ok, list = pcall(cjson.decode, '[' .. (json or '""') .. ']')
    name = 'h' .. (ok and list[#list] or '')
  end
  counts[name] = (counts[name] or 0) + 1
end
for name, n in pairs(counts) do out[#out + 1] = name out[#out + 1] = n end
return out
