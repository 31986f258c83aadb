/** Addresses and CIDR networks in one written form, and a fast search for the one that holds an address. Pure. */
import { isIPv4, isIPv6 } from 'node:net'

type Network = { readonly bits: 32 | 128; readonly value: bigint; readonly prefix: number }

/** IPv4 in IPv6 (`::ffff:192.0.2.1`, RFC 4291 section 2.5.5.2) is IPv4: one client, one entry. */
const MAPPED = 0xffffn
const MAPPED_PREFIX = 96

/**
 * `10.1.2.3/8` as `10.0.0.0/8`, `2001:DB8:0::1/128` as `2001:db8::1`: equal networks have equal
 * text. Null when it is neither an address nor a network.
 */
export function canonicalNetwork(text: string): string | null {
  const network = parseNetwork(text)
  return network === null ? null : formatNetwork(network)
}

/** Networks by canonical text. A search costs one look-up for each prefix length that occurs. */
export class NetworkIndex {
  readonly #prefixes: Record<32 | 128, number[]> = { 32: [], 128: [] }
  readonly #texts = new Map<string, string>()

  /** Texts that are no networks are left out. */
  constructor(networks: Iterable<string>) {
    this.#add(networks)
  }

  /** Another one with these changes: of many networks only the few are read again. */
  changed(removed: Iterable<string>, added: Iterable<string>): NetworkIndex {
    const next = new NetworkIndex([])
    for (const bits of [32, 128] as const) next.#prefixes[bits].push(...this.#prefixes[bits])
    for (const [name, text] of this.#texts) next.#texts.set(name, text)
    for (const text of removed) {
      const network = parseNetwork(text)
      if (network !== null) next.#texts.delete(nameOf(network))
    }
    next.#add(added)
    return next
  }

  /** The narrowest network that holds the address, as it was given; null: none, or no address. */
  find(ip: string): string | null {
    if (this.#texts.size === 0) return null
    const address = parseNetwork(ip)
    if (address === null) return null
    for (const prefix of this.#prefixes[address.bits]) {
      const found = this.#texts.get(nameOf(masked(address, prefix)))
      if (found !== undefined) return found
    }
    return null
  }

  #add(networks: Iterable<string>): void {
    for (const text of networks) {
      const network = parseNetwork(text)
      if (network === null) continue
      const prefixes = this.#prefixes[network.bits]
      if (!prefixes.includes(network.prefix)) prefixes.push(network.prefix)
      this.#texts.set(nameOf(network), text)
    }
    // The narrowest is found first: it says most.
    for (const prefixes of Object.values(this.#prefixes)) prefixes.sort((a, b) => b - a)
  }
}

function parseNetwork(text: string): Network | null {
  const [address = '', prefix, ...rest] = text.split('/')
  if (rest.length > 0 || (prefix !== undefined && !/^\d{1,3}$/.test(prefix))) return null
  if (isIPv4(address)) return network(32, ipv4Value(address), prefix)
  if (!isIPv6(address) || address.includes('%')) return null
  const value = ipv6Value(address)
  const isMapped = value >> 32n === MAPPED
  if (!isMapped) return network(128, value, prefix)
  const length = prefix === undefined ? 128 : Number(prefix)
  if (length < MAPPED_PREFIX) return network(128, value, prefix)
  return network(32, value & 0xffff_ffffn, String(length - MAPPED_PREFIX))
}

function network(bits: 32 | 128, value: bigint, prefix: string | undefined): Network | null {
  const length = prefix === undefined ? bits : Number(prefix)
  return length > bits ? null : masked({ bits, value, prefix: bits }, length)
}

function masked({ bits, value }: Network, prefix: number): Network {
  const shift = BigInt(bits - prefix)
  return { bits, value: (value >> shift) << shift, prefix }
}

function nameOf({ bits, value, prefix }: Network): string {
  return `${bits} ${prefix} ${value.toString(36)}`
}

function formatNetwork({ bits, value, prefix }: Network): string {
  const address = bits === 32 ? formatIpv4(value) : formatIpv6(value)
  return prefix === bits ? address : `${address}/${prefix}`
}

function ipv4Value(address: string): bigint {
  return address.split('.').reduce((sum, part) => (sum << 8n) | BigInt(part), 0n)
}

function ipv6Value(address: string): bigint {
  const dotted = /^(.*:)(\d+(?:\.\d+){3})$/.exec(address)
  const low = dotted === null ? 0n : ipv4Value(dotted[2] ?? '0.0.0.0')
  const text =
    dotted === null
      ? address
      : `${dotted[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`
  const [head = '', tail] = text.split('::')
  const left = groupsOf(head)
  const right = groupsOf(tail ?? '')
  const zeros = tail === undefined ? [] : Array<bigint>(8 - left.length - right.length).fill(0n)
  return [...left, ...zeros, ...right].reduce((sum, group) => (sum << 16n) | group, 0n)
}

function groupsOf(text: string): readonly bigint[] {
  return text === '' ? [] : text.split(':').map((group) => BigInt(`0x${group}`))
}

function formatIpv4(value: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.')
}

/** The shortest form: the longest run of zeros, the first of equal ones, is `::` (RFC 5952). */
function formatIpv6(value: bigint): string {
  const groups = Array.from({ length: 8 }, (_, index) =>
    ((value >> BigInt(112 - 16 * index)) & 0xffffn).toString(16),
  )
  let [best, length] = [-1, 1]
  for (let from = 0; from < 8; from++) {
    let end = from
    while (end < 8 && groups[end] === '0') end++
    if (end - from > length) [best, length] = [from, end - from]
  }
  if (best < 0) return groups.join(':')
  return `${groups.slice(0, best).join(':')}::${groups.slice(best + length).join(':')}`
}
