/** `HOST:PORT` and `[http://|https://]HOST:PORT` as the command line gives them. */
import { isIP } from 'node:net'
import { type Address, UsageError } from './world.ts'

/** IPv6 in brackets. Port 0 lets the system choose. @throws UsageError naming the option */
export function parseAddress(option: string, text: string): Address {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+)):(\d{1,5})$/i.exec(text)
  const host = match?.[1] ?? match?.[2] ?? ''
  const port = Number(match?.[3])
  const valid = match !== null && port <= 65_535 && (match[1] === undefined || isIP(host) === 6)
  if (valid) return { host, port }
  throw new UsageError(
    option.replace(/^--/, ''),
    `${option} "${text}" is no address.`,
    `Give HOST:PORT, as 127.0.0.1:2525 or [::1]:2525.`,
  )
}

/** The web address; https without a scheme. Plain http only where nobody can listen in. */
export function parseWeb(option: string, text: string): Address & { readonly tls: boolean } {
  const match = /^(?:(https?):\/\/)?([^/]*)\/?$/i.exec(text)
  const address = parseAddress(option, match?.[2] ?? text)
  const tls = (match?.[1] ?? 'https').toLowerCase() === 'https'
  if (!tls && !isLoopback(address.host)) {
    throw new UsageError(
      option.replace(/^--/, ''),
      `${option} "${text}" would send passwords in clear text.`,
      'Use https://, or http:// on 127.0.0.1 or [::1] only.',
    )
  }
  return { ...address, tls }
}

/** The whole of 127/8, ::1, and the name that means them. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)
}

/** As people and URLs write it. */
export function formatAddress({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}
