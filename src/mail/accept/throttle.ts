/** Connections, rates and recipients per client network, in bounded memory. */
import { BlockList, isIPv6 } from 'node:net'
import type { Clock } from '../../base/clock.ts'
import type { Settings } from '../../config/schema.ts'

/** Networks remembered at a time; the one longest unseen is forgotten first (faults.md G10). */
const NETWORKS_MAX = 50_000
const MINUTE_MS = 60_000
const RECIPIENT_WINDOW_MS = 5 * MINUTE_MS

type Network = {
  open: number
  /** Start of the running minute and its count; likewise for recipients. */
  minuteMono: number
  connections: number
  windowMono: number
  recipients: number
  /** A message from here was accepted: it need not wait for its greeting any more. */
  hasBehaved: boolean
}

/** IPv4 addresses are counted one by one, IPv6 by /64: whoever has one has all of it. */
export function networkOf(ip: string): string {
  if (!isIPv6(ip)) return ip
  const [head = '', tail = ''] = ip.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === '' ? [] : tail.split(':')
  const zeros = ip.includes('::')
    ? Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0')
    : []
  return `${[...left, ...zeros, ...right].slice(0, 4).join(':')}::/64`
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

export class Throttle {
  readonly #clock: Clock
  readonly #networks = new Map<string, Network>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Counts a connection; false when it is one too many. Pair each true with `closed`. */
  opened(ip: string, settings: Settings): boolean {
    const network = this.#of(ip)
    const nowMono = this.#clock.monoMs()
    if (nowMono - network.minuteMono >= MINUTE_MS) {
      network.minuteMono = nowMono
      network.connections = 0
    }
    network.connections += 1
    if (network.open >= settings['limits.connections']) return false
    if (network.connections > settings['limits.connectionRate']) return false
    network.open += 1
    return true
  }

  closed(ip: string): void {
    const network = this.#networks.get(networkOf(ip))
    if (network !== undefined) network.open = Math.max(0, network.open - 1)
  }

  /** Counts a recipient; false when it is one too many. */
  addressed(ip: string, settings: Settings): boolean {
    const network = this.#of(ip)
    const nowMono = this.#clock.monoMs()
    if (nowMono - network.windowMono >= RECIPIENT_WINDOW_MS) {
      network.windowMono = nowMono
      network.recipients = 0
    }
    network.recipients += 1
    return network.recipients <= settings['limits.recipientRate']
  }

  /** A message from this client was accepted. */
  behaved(ip: string): void {
    this.#of(ip).hasBehaved = true
  }

  /** Whether this client network was seen to behave, as far as is remembered. */
  hasBehaved(ip: string): boolean {
    return this.#networks.get(networkOf(ip))?.hasBehaved === true
  }

  #of(ip: string): Network {
    const key = networkOf(ip)
    const known = this.#networks.get(key)
    // Put at the end again: the first of the map is the one longest unseen.
    if (known !== undefined) this.#networks.delete(key)
    const nowMono = this.#clock.monoMs()
    const network = known ?? {
      open: 0,
      minuteMono: nowMono,
      connections: 0,
      windowMono: nowMono,
      recipients: 0,
      hasBehaved: false,
    }
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
