/**
 * Connections, and rates of connections, messages and recipients, per client network, in bounded
 * memory. A rate holds for all nodes together: what the others have counted is added to what this
 * one has, so a network that is too fast on one node is so everywhere within two seconds.
 */
import { BlockList, isIPv6 } from 'node:net'
import { groupsOf } from '../../base/address.ts'
import type { Clock } from '../../base/clock.ts'
import { ALONE, type Tally, type Topic } from '../../base/tally.ts'
import type { Settings } from '../../config/schema.ts'

/** Networks remembered at a time; the one longest unseen is forgotten first (faults.md G10). */
const NETWORKS_MAX = 50_000
const MINUTE_MS = 60_000

/** What is counted, for how long, and up to which setting. */
const RATES = {
  connections: { windowMs: MINUTE_MS, limit: 'limits.connectionRate' },
  messages: { windowMs: MINUTE_MS, limit: 'limits.messageRate' },
  recipients: { windowMs: 5 * MINUTE_MS, limit: 'limits.recipientRate' },
} as const
type Rate = keyof typeof RATES

/** The running window of a count; it begins with its first event. */
type Window = { endsMono: number; count: number }

type Network = {
  readonly key: string
  open: number
  readonly windows: { readonly [Name in Rate]: Window }
  /** A message from here was accepted: it need not wait for its greeting any more. */
  hasBehaved: boolean
}

/** IPv4 addresses are counted one by one, IPv6 by /64: whoever has one has all of it. */
export function networkOf(ip: string): string {
  if (!isIPv6(ip)) return ip
  return `${groupsOf(ip).slice(0, 4).join(':')}::/64`
}

/** `::ffff:192.0.2.1` as `192.0.2.1`; a zone is cut off. */
export function plainIp(ip: string): string {
  const bare = ip.split('%')[0] ?? ip
  return bare.toLowerCase().startsWith('::ffff:') && bare.includes('.') ? bare.slice(7) : bare
}

/** A fast test for membership in a list of addresses and CIDR networks. */
export function networkList(networks: readonly string[]): (ip: string) => boolean {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', prefix] = network.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (prefix === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(prefix), family)
  }
  return (ip) => list.check(ip, isIPv6(ip) ? 'ipv6' : 'ipv4')
}

function newWindows(): Network['windows'] {
  const begins = (): Window => ({ endsMono: 0, count: 0 })
  return { connections: begins(), messages: begins(), recipients: begins() }
}

export class Throttle {
  readonly #clock: Clock
  readonly #tally: Tally
  readonly #topics: { readonly [Name in Rate]: Topic }
  readonly #networks = new Map<string, Network>()

  constructor(clock: Clock, tally: Tally = ALONE) {
    this.#clock = clock
    this.#tally = tally
    this.#topics = {
      connections: tally.topic('connections'),
      messages: tally.topic('messages'),
      recipients: tally.topic('recipients'),
    }
  }

  /** Counts a connection; false when it is one too many. Pair each true with `closed`. */
  opened(ip: string, settings: Settings): boolean {
    const network = this.#of(ip)
    const isWithin = this.#count(network, 'connections', settings)
    if (!isWithin || network.open >= settings['limits.connections']) return false
    network.open += 1
    return true
  }

  closed(ip: string): void {
    const network = this.#networks.get(networkOf(ip))
    if (network !== undefined) network.open = Math.max(0, network.open - 1)
  }

  /** Counts a message that begins; false when it is one too many. */
  begun(ip: string, settings: Settings): boolean {
    return this.#count(this.#of(ip), 'messages', settings)
  }

  /** Counts a recipient; false when it is one too many. */
  addressed(ip: string, settings: Settings): boolean {
    return this.#count(this.#of(ip), 'recipients', settings)
  }

  /** A message from this client was accepted. */
  behaved(ip: string): void {
    this.#of(ip).hasBehaved = true
  }

  /** Whether this client network was seen to behave, as far as is remembered. */
  hasBehaved(ip: string): boolean {
    return this.#networks.get(networkOf(ip))?.hasBehaved === true
  }

  /** Counts what is refused, too; false when it is one too many, here and elsewhere together. */
  #count({ key, windows }: Network, rate: Rate, settings: Settings): boolean {
    const { windowMs, limit } = RATES[rate]
    const window = windows[rate]
    const nowMono = this.#clock.monoMs()
    if (nowMono >= window.endsMono) {
      window.endsMono = nowMono + windowMs
      window.count = 0
    }
    window.count += 1
    const topic = this.#topics[rate]
    topic.tell(key, window.count, window.endsMono - nowMono)
    const isStrict = settings['limits.shared'] === 'strict'
    const share = isStrict ? this.#tally.share() : 1
    return window.count + topic.sum(key) <= Math.max(1, Math.floor(settings[limit] * share))
  }

  #of(ip: string): Network {
    const key = networkOf(ip)
    const known = this.#networks.get(key)
    // Put at the end again: the first of the map is the one longest unseen.
    if (known !== undefined) this.#networks.delete(key)
    const network = known ?? { key, open: 0, windows: newWindows(), hasBehaved: false }
    this.#networks.set(key, network)
    if (this.#networks.size > NETWORKS_MAX) {
      for (const [oldest, { open }] of this.#networks) {
        if (open > 0) continue
        this.#networks.delete(oldest)
        break
      }
    }
    return network
  }
}
