-- ARGV: lists. Answer: the sum of their lengths, then for each that has a message the delivery tag and the eta of the one that is
-- served next ("" when there is none).
local out = {0}
for i = 1, #ARGV do
  local len = redis.pcall('LLEN', ARGV[i])
  if type(len) == 'number' and len > 0 then
    out[1] = out[1] + len
    -- Inside of a JSON string every quote has a backslash before it: these are members.
    local m = redis.call('LINDEX', ARGV[i], -1)
    out[#out + 1] = m:match('"delivery_tag":%s*"([^"\\]*)"') or ''
    out[#out + 1] = m:match('"eta":%s*"([^"\\]*)"') or ''
  end
end
return out
