/** A host and a port as one word. */
import { isIPv6 } from 'node:net'

/** `192.0.2.1:25`, `[2001:db8::1]:25`. */
export function formatEndpoint(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
}
