/**
 * From a recipient to its route, and from a route to the addresses that are asked in turn (RFC 5321
 * section 5.1, RFC 7505).
 */
import { isIP } from 'node:net'
import { domainToASCII } from 'node:url'
import { type MxRecord, NoSuchNameError, type Resolver } from '../../base/dns.ts'
import { GatewayError, messageOf } from '../../base/errors.ts'
import { type Random, shuffled } from '../../base/random.ts'
import type { Snapshot } from '../../config/snapshot.ts'
import { parseAddress } from '../../message/address.ts'
import { formatNextHop, type NextHop } from '../../message/nexthop.ts'
import { type Reply, reply } from '../../message/reply.ts'
import type { Route } from './contract.ts'

/** No address can be had. With a reply: no retry changes it. Without: names did not answer. */
export class NoRouteError extends GatewayError {
  override name = 'NoRouteError'
  readonly reply: Reply | null

  constructor(message: string, answer: Reply | null, cause?: unknown) {
    super(message, { remedy: answer === null ? 'retry' : 'give-up', cause })
    this.reply = answer
  }
}

/** Exchangers of one domain that are looked at, lowest preference first. */
const EXCHANGERS_MAX = 10
/** Addresses of one route that are tried in one attempt; RFC 5321 section 5.1 wants two at least. */
export const ADDRESSES_MAX = 10

/** The next hops of its domain, else its MX. */
export function routeOf(address: string, snapshot: Snapshot): Route {
  const domain = parseAddress(address)?.domain ?? ''
  const known = snapshot.domains.get(domain)
  return known === undefined || known.nextHops.length === 0
    ? { kind: 'mx', domain }
    : { kind: 'hops', hops: known.nextHops }
}

/** One string for all messages that wait for the same hops. */
const hopKeys = new WeakMap<readonly NextHop[], string>()

/** Equal where connections and back-off are shared. */
export function routeKey(route: Route): string {
  if (route.kind === 'mx') return `mx ${route.domain}`
  const { hops } = route
  const known = hopKeys.get(hops)
  if (known !== undefined) return known
  const key = hops.map(formatNextHop).join(' ')
  hopKeys.set(hops, key)
  return key
}

/** Addresses of a next hop that the operator named: it may be anywhere, also on loopback. */
export async function hopAddresses(hop: NextHop, resolver: Resolver): Promise<readonly string[]> {
  if (isIP(hop.host) !== 0) return [hop.host]
  try {
    return (await resolver.addresses(hop.host)).slice(0, ADDRESSES_MAX)
  } catch (cause) {
    // Also when the name does not exist: the operator may mend it before the mail expires.
    throw new NoRouteError(`${hop.host}: ${messageOf(cause)}`, null, cause)
  }
}

export type Exchanger = { readonly host: string; readonly ip: string }

/**
 * Addresses that take mail for `domain`, in the order in which they are tried, at most
 * ADDRESSES_MAX. Own and loopback addresses are never among them: the mail would come back.
 * @throws NoRouteError
 */
export async function mxAddresses(
  domain: string,
  deps: { readonly resolver: Resolver; readonly random: Random; readonly isOwn: IsOwn },
): Promise<readonly Exchanger[]> {
  const literal = /^\[(?:IPv6:)?([0-9a-f.:]+)\]$/i.exec(domain)?.[1] ?? ''
  if (isIP(literal) !== 0) {
    if (deps.isOwn(literal)) throw loops()
    return [{ host: literal, ip: literal }]
  }
  const name = isPlain(domain) ? domain : domainToASCII(domain)
  const records = await exchangers(name, deps.resolver)
  const ordered = inOrder(records, deps.random).slice(0, EXCHANGERS_MAX)
  const found = await Promise.all(
    ordered.map(async (record) => ({ record, ips: await addressesOf(record, deps.resolver) })),
  )
  // Section 5.1: at and beyond our own preference, everything leads back to us.
  const own = found.filter(({ ips }) => Array.isArray(ips) && ips.some(deps.isOwn))
  const limit = Math.min(...own.map(({ record }) => record.preference))
  const usable = found.filter(({ record }) => record.preference < limit)
  const addresses = usable.flatMap(({ record, ips }) =>
    Array.isArray(ips) ? ips.map((ip) => ({ host: record.host, ip })) : [],
  )
  if (addresses.length > 0) return addresses.slice(0, ADDRESSES_MAX)
  const silent = usable.map(({ ips }) => ips).find((ips) => ips instanceof GatewayError)
  if (silent !== undefined) throw new NoRouteError(messageOf(silent), null, silent)
  if (own.length > 0) throw loops()
  throw new NoRouteError(
    `no mail exchanger of ${domain} has an address`,
    reply(550, '5.4.4', 'No mail exchanger of the domain has an address'),
  )
}

async function exchangers(name: string, resolver: Resolver): Promise<readonly MxRecord[]> {
  let records: readonly MxRecord[]
  try {
    records = await resolver.mx(name)
  } catch (cause) {
    if (!(cause instanceof NoSuchNameError)) {
      throw new NoRouteError(`MX of ${name}: ${messageOf(cause)}`, null, cause)
    }
    records = []
  }
  const named = records.filter(({ host }) => host !== '')
  if (named.length > 0) return named
  if (records.length > 0) {
    const text = 'The domain takes no mail (null MX)'
    throw new NoRouteError(text, reply(556, '5.1.10', text))
  }
  return [await implicitExchanger(name, resolver)]
}

/** Section 5.1: a domain without MX records is its own exchanger if it has an address. */
async function implicitExchanger(name: string, resolver: Resolver): Promise<MxRecord> {
  try {
    await resolver.addresses(name)
    return { preference: 0, host: name }
  } catch (cause) {
    if (cause instanceof NoSuchNameError) {
      const text = 'The domain does not exist'
      throw new NoRouteError(text, reply(550, '5.1.2', text), cause)
    }
    throw new NoRouteError(`${name}: ${messageOf(cause)}`, null, cause)
  }
}

/** By preference; equal ones shuffled, so that their load is shared. */
function inOrder(records: readonly MxRecord[], random: Random): MxRecord[] {
  return shuffled(records, random).sort((one, other) => one.preference - other.preference)
}

/** None for a name that does not exist; the error when there was no answer. */
async function addressesOf(
  record: MxRecord,
  resolver: Resolver,
): Promise<readonly string[] | GatewayError> {
  // RFC 5321 section 5.1: an MX names a host. An address in its place is no name.
  if (isIP(record.host) !== 0) return []
  try {
    return await resolver.addresses(record.host)
  } catch (cause) {
    if (cause instanceof NoSuchNameError) return []
    if (cause instanceof GatewayError) return cause
    throw cause
  }
}

export type IsOwn = (ip: string) => boolean

/** Loopback, unspecified, or one of ours in any spelling. IPv4-mapped addresses count as IPv4. */
export function ownAddresses(own: readonly string[]): IsOwn {
  const known = new Set(own.map(canonical))
  return (ip) => {
    const plain = canonical(ip)
    return /^(?:0|127)\./.test(plain) || plain === '::' || plain === '::1' || known.has(plain)
  }
}

function canonical(ip: string): string {
  if (isIP(ip) !== 6) return ip
  // The URL parser writes IPv6 in its one canonical form, RFC 5952.
  const text = new URL(`http://[${ip.replace(/%.*$/, '')}]/`).hostname.slice(1, -1)
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(text)
  if (mapped === null) return text
  const word = (Number.parseInt(mapped[1] ?? '', 16) << 16) | Number.parseInt(mapped[2] ?? '', 16)
  return [24, 16, 8, 0].map((shift) => (word >>> shift) & 255).join('.')
}

function loops(): NoRouteError {
  const text = 'Mail for the domain loops back to this server'
  return new NoRouteError(text, reply(554, '5.4.6', text))
}

function isPlain(text: string): boolean {
  return !/[^\x20-\x7e]/.test(text)
}
