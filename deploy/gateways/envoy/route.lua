-- NAME[-CLUSTER].NAMESPACE[.svc[.cluster.local]][:PORT] becomes NAME.NAMESPACE.svc.cluster.local[:PORT].
-- A name that ends with the cluster's name is always that of a mirror: a Service bar-paris here cannot
-- receive the requests that London sends to bar.
local cluster = os.getenv("CLUSTER") or "paris"
local certificate = os.getenv("CLIENT_CERTIFICATE") == "required"
local suffixes = {[""] = true, [".svc"] = true, [".svc.cluster.local"] = true}

local exported, every = {}, false
for line in io.lines("/etc/envoy/exported") do
  every = every or line == "*"
  exported[line] = true
end

local function refuse(handle, status, why)
  handle:respond({[":status"] = status}, status .. ": " .. why .. "\n")
end

local function split(authority)
  local host, port = authority:lower():match("^([a-z0-9.-]+):?(%d*)$")
  if not host then return end
  local name, namespace, rest = host:gsub("%.$", ""):match("^([a-z0-9][a-z0-9-]*)%.([a-z0-9-]+)(.*)$")
  if not name or not suffixes[rest] then return end
  return name, namespace, port
end

-- Over TLS, browsers use HTTP/2 for Services that may not support it, so only gRPC is sent on as HTTP/2.
local function upstream(handle, headers, ssl)
  if not ssl then return "plain" end
  local version = (headers:get("content-type") or ""):sub(1, 16) == "application/grpc" and "2" or "1"
  local edge = handle:streamInfo():downstreamLocalAddress():match(":9444$")
  return (edge and "plain-" or "tls-") .. version
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local ssl = handle:streamInfo():downstreamSslConnection()
  if certificate and not (ssl and ssl:peerCertificatePresented() and ssl:peerCertificateValidated()) then
    return refuse(handle, "400", "a certificate of the clusters' root is required")
  end
  local authority = headers:get(":authority") or ""
  local name, namespace, port = split(authority)
  if not name then return refuse(handle, "421", "no Service has this name") end
  local alias = #name > #cluster + 1 and name:sub(-#cluster - 1) == "-" .. cluster
  if alias then name = name:sub(1, -#cluster - 2) end
  if not every and not exported[namespace .. "/" .. name] then return refuse(handle, "421", "not exported") end

  local service = name .. "." .. namespace .. ".svc.cluster.local"
  headers:replace("x-forwarded-host", authority)
  headers:replace(":authority", port == "" and service or service .. ":" .. port)
  -- Without a port, it is that of the URL's scheme, as the client sees it.
  headers:replace("x-service-host", service)
  headers:replace("x-service-port", port ~= "" and port or ssl and "443" or "80")
  headers:replace("x-service-cluster", upstream(handle, headers, ssl))
  -- A plain name without an address does not belong to this cluster.
  handle:streamInfo():dynamicMetadata():set("service", "alias", alias)
end
