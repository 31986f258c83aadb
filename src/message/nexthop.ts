/** Next hop: where the mail of a domain goes. */

/** Written `smtp://HOST:PORT` or `lmtp://HOST:PORT`; IPv6 in brackets; lmtp has no default port. */
export type NextHop = {
  readonly protocol: 'smtp' | 'lmtp'
  /** Hostname or address, without brackets, lower case. */
  readonly host: string
  readonly port: number
}

/**
 * Reads `smtp://host[:port]` (port 25 by default), `lmtp://host:port` or plain `host[:port]`.
 * Null when it is none of these; never throws.
 */
export function parseNextHop(text: string): NextHop | null {
  const match = /^(?:(smtp|lmtp):\/\/)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?\/?$/i.exec(
    text,
  )
  if (match === null) return null
  const protocol = (match[1] ?? 'smtp').toLowerCase() as NextHop['protocol']
  const host = (match[2] ?? '').replace(/^\[|\]$/g, '').toLowerCase()
  const port = match[3] === undefined ? (protocol === 'smtp' ? 25 : 0) : Number(match[3])
  if (port < 1 || port > 65_535 || host.length > 253) return null
  return { protocol, host, port }
}

/** The form that parseNextHop reads, with the port always written. */
export function formatNextHop({ protocol, host, port }: NextHop): string {
  return `${protocol}://${host.includes(':') ? `[${host}]` : host}:${port}`
}
