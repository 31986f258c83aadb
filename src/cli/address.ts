/** `HOST:PORT` and `[http://|https://]HOST:PORT` as the command line gives them. */
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
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

/** Addresses of one node that others are told. */
const ADVERTISED_MAX = 8

/**
 * `HOST[:PORT],…` of --advertise. Literal addresses: a name may mean another node elsewhere.
 * Without a port: 0. @throws UsageError
 */
export function parseAdvertise(text: string): readonly Address[] {
  const words = text.split(',').map((word) => word.trim())
  const addresses = words
    .filter((word) => word !== '')
    .map((word) => {
      const bare = word.replace(/^\[(.*)\]$/, '$1')
      if (isIP(bare) !== 0) return { host: bare, port: 0 }
      const address = parseAddress('--advertise', word)
      if (isIP(address.host) !== 0) return address
      throw new UsageError(
        'advertise',
        `--advertise "${word}" is a name.`,
        'Give the address that it stands for, as 203.0.113.7 or [2001:db8::7]:7946.',
      )
    })
  if (addresses.length <= ADVERTISED_MAX) return addresses
  throw new UsageError(
    'advertise',
    `--advertise has ${addresses.length} addresses.`,
    `Give at most ${ADVERTISED_MAX}.`,
  )
}

type Interfaces = ReturnType<typeof networkInterfaces>

/**
 * Where others may find who listens on `host`: the addresses of the interfaces for the wildcard,
 * else the address itself. Loopback only when there is nothing else.
 */
export function ownAddresses(
  host: string,
  interfaces: Interfaces = networkInterfaces(),
): readonly Address[] {
  if (host !== '0.0.0.0' && host !== '::') {
    return [{ host: host === 'localhost' ? '127.0.0.1' : host, port: 0 }]
  }
  const all = Object.values(interfaces).flatMap((each) => each ?? [])
  const found = all
    // Link-local ones mean nothing without an interface.
    .filter(({ internal, address }) => !internal && !/^(fe[89ab]|169\.254\.)/i.test(address))
    .map(({ address }) => address)
    .filter((address) => isIP(address) === 4 || host === '::')
    .sort((a, b) => isIP(a) - isIP(b))
  const hosts = found.length > 0 ? found : [host === '::' ? '::1' : '127.0.0.1']
  return [...new Set(hosts)].slice(0, ADVERTISED_MAX).map((one) => ({ host: one, port: 0 }))
}
