-- ARGV: lists. Answer: the sum of their lengths.
local n = 0
for i = 1, #ARGV do
  local len = redis.pcall('LLEN', ARGV[i])
  if type(len) == 'number' then n = n + len end
end
return n
