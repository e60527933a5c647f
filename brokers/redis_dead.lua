-- ARGV: dead-letter list, from, to. Answer: how many were there, then pairs: queue and number.
local docs = redis.call('LRANGE', ARGV[1], ARGV[2], ARGV[3])
local counts, out = {}, {#docs}
for _, doc in ipairs(docs) do
  local json = doc:sub(1, 1024):match('^{"queue": (".-[^\\]"), "reason"')
  local ok, list = pcall(cjson.decode, '[' .. (json or '""') .. ']')
  local name = ok and list[1] or ''
  counts[name] = (counts[name] or 0) + 1
end
for name, n in pairs(counts) do out[#out + 1] = name out[#out + 1] = n end
return out
