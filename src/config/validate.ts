/**
 * From what somebody typed to a value of the configuration, or a refusal that says what to do.
 * Pure. Forms, the API, the command line and stored cells pass the same door.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { domainToASCII } from 'node:url'
import { RefusalError } from '../base/errors.ts'
import { DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX } from '../base/limits.ts'
import { parseAddress } from '../message/address.ts'
import { formatNextHop, type NextHop, parseNextHop } from '../message/nexthop.ts'
import type { DomainGroup } from './cells.ts'
import { readLines } from './lines.ts'
import { canonicalNetwork } from './networks.ts'
import {
  isSettingKey,
  SETTINGS,
  type Setting,
  type SettingKey,
  type Settings,
  type SettingValue,
} from './schema.ts'
import type { Domain } from './snapshot.ts'

/** Next hops of one domain. */
const NEXT_HOPS_MAX = 10
/** Known recipients of one domain. */
const RECIPIENTS_LIST_MAX = 100_000
/** Networks in one setting. */
const NETWORKS_MAX = 1_000
/** Domains of one gateway. */
export const DOMAINS_MAX = 10_000

/** @throws RefusalError notFound that names the closest keys */
export function readSettingKey(key: string): SettingKey {
  if (isSettingKey(key)) return key
  const near = closest(key, Object.keys(SETTINGS))
  throw new RefusalError(
    'notFound',
    key.slice(0, 100),
    `There is no setting ${JSON.stringify(key.slice(0, 100))}.`,
    near.length > 0 ? `Did you mean ${near.join(' or ')}?` : 'See "config get" for all settings.',
  )
}

/**
 * The value of setting `key` from JSON (`8`, `true`, `["::1"]`) or from text as typed in a form
 * or a command (`"8"`, `"on"`, `"10.0.0.0/8, ::1"`). Bounds across settings: `checkTogether`.
 * @throws RefusalError invalid, with `key` as its field
 */
export function readSetting(key: SettingKey, raw: unknown): SettingValue {
  const setting = SETTINGS[key] as Setting
  switch (setting.kind) {
    case 'whole':
    case 'number':
      return readNumber(key, setting, raw)
    case 'flag':
      return readFlag(key, raw)
    case 'choice':
      return readChoice(key, setting.choices, raw)
    case 'networks':
      return readNetworks(key, raw)
    case 'lines':
      return readLines(key, setting.form, linesOf(key, raw))
    case 'names':
      return readNames(key, setting.choices, raw)
  }
}

type NumberSetting = Extract<Setting, { readonly kind: 'whole' | 'number' }>

function readNumber(key: string, setting: NumberSetting, raw: unknown): number {
  const { kind, min, max, unit } = setting
  const bounds = `Enter a ${kind === 'whole' ? 'whole number' : 'number'} from ${min} to ${max} (${unit}).`
  const text = typeof raw === 'string' ? raw.trim() : raw
  const value =
    typeof text === 'number'
      ? text
      : typeof text === 'string' && DECIMAL.test(text)
        ? Number(text)
        : Number.NaN
  if (!Number.isFinite(value)) refuse(key, `${quote(raw)} is not a number.`, bounds)
  if (kind === 'whole' && !Number.isInteger(value)) {
    refuse(key, `${value} is not a whole number.`, bounds)
  }
  if (value < min) refuse(key, `${value} is too small.`, bounds)
  if (value > max) refuse(key, `${value} is too large.`, bounds)
  return value
}

/** No hexadecimal, no exponent, no empty text: `Number` would take all three. */
const DECIMAL = /^[+-]?\d{1,15}(?:\.\d{1,9})?$/

function readFlag(key: string, raw: unknown): boolean {
  if (typeof raw === 'boolean') return raw
  const text = typeof raw === 'string' ? raw.trim().toLowerCase() : ''
  if (['true', 'on', 'yes'].includes(text)) return true
  if (['false', 'off', 'no'].includes(text)) return false
  return refuse(key, `${quote(raw)} is neither on nor off.`, 'Enter true or false.')
}

function readChoice(key: string, choices: readonly string[], raw: unknown): string {
  const text = typeof raw === 'string' ? raw.trim() : ''
  if (choices.includes(text)) return text
  return refuse(key, `${quote(raw)} is not a choice.`, `Enter ${oneOf(choices)}.`)
}

function readNetworks(key: string, raw: unknown): readonly string[] {
  const networks = unique(readList(key, raw).map((text) => readNetwork(key, text)))
  if (networks.length > NETWORKS_MAX) {
    refuse(key, `${networks.length} networks are too many.`, `Enter at most ${NETWORKS_MAX}.`)
  }
  return networks
}

/** An address or a CIDR network; bits below the prefix may be set. In lower case. */
function readNetwork(key: string, text: string): string {
  const advice = 'Enter networks like 10.0.0.0/8 or 2001:db8::/32, or single addresses.'
  const [address = '', prefix, ...rest] = text.split('/')
  const bits = isIPv4(address) ? 32 : isIPv6(address) && !address.includes('%') ? 128 : 0
  if (bits === 0 || rest.length > 0) {
    refuse(key, `${quote(text)} is not an address or a network.`, advice)
  }
  if (prefix !== undefined && !(/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits)) {
    refuse(key, `${quote(text)} has a wrong prefix length.`, `It is 0 to ${bits} for ${address}.`)
  }
  return prefix === undefined ? address.toLowerCase() : `${address.toLowerCase()}/${Number(prefix)}`
}

function readNames(key: string, choices: readonly string[], raw: unknown): readonly string[] {
  const names = unique(readList(key, raw))
  const unknown = names.find((name) => !choices.includes(name))
  if (unknown !== undefined) {
    refuse(key, `There is no ${quote(unknown)}.`, `Choose from ${choices.join(', ')}.`)
  }
  // In the order of the schema: the same set is the same value.
  return choices.filter((choice) => names.includes(choice))
}

/** A JSON list, or text with an item a line; in a command also parted by semicolons. */
function linesOf(key: string, raw: unknown): readonly string[] {
  if (typeof raw === 'string' && !raw.trim().startsWith('[')) return raw.split(/[\r\n;]+/)
  return readList(key, raw)
}

/** Items of a JSON list, or of text parted by commas, spaces or lines. */
function readList(key: string, raw: unknown): readonly string[] {
  if (typeof raw === 'string') {
    const text = raw.trim()
    if (text.startsWith('[')) return readList(key, parseJson(text))
    return text === '' ? [] : text.split(/[\s,;]+/).filter((item) => item !== '')
  }
  if (Array.isArray(raw) && raw.every((item) => typeof item === 'string')) {
    return raw.map((item) => item.trim()).filter((item) => item !== '')
  }
  return refuse(key, `${quote(raw)} is not a list.`, 'Enter a list, parted by commas.')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/**
 * A domain name as it is stored and compared: lower case, A-labels, no trailing dot.
 * @throws RefusalError invalid, field `name`
 */
export function readDomainName(raw: string): string {
  const text = raw.trim().replace(/\.$/, '')
  const advice = 'Enter the part after the @ of its addresses, like example.com.'
  if (text.includes('@') || text.includes('/') || /\s/.test(text)) {
    refuse('name', `${quote(raw)} is not a domain name.`, advice)
  }
  // domainToASCII also reads percent codes and IPv4 in every notation; labels are checked after it.
  const name = /^[\x21-\x7e]*$/.test(text) ? text.toLowerCase() : domainToASCII(text)
  const labels = name.split('.')
  const good =
    name.length <= Math.min(253, DOMAIN_BYTES_MAX) &&
    labels.every((label) => /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/.test(label)) &&
    !/^\d+$/.test(labels.at(-1) ?? '')
  if (!good) refuse('name', `${quote(raw)} is not a domain name.`, advice)
  return name
}

/** @throws RefusalError invalid, field `nextHops` */
export function readNextHops(raw: readonly string[]): readonly NextHop[] {
  const advice = 'Enter smtp://HOST:PORT or lmtp://HOST:PORT, like smtp://mail.example.com:25.'
  const hops = raw.map((text) => {
    const hop = parseNextHop(text.trim())
    return hop ?? refuse('nextHops', `${quote(text)} is not a next hop.`, advice)
  })
  if (hops.length > NEXT_HOPS_MAX) {
    refuse('nextHops', `${hops.length} next hops are too many.`, `Enter at most ${NEXT_HOPS_MAX}.`)
  }
  const texts = hops.map(formatNextHop)
  return hops.filter((_, index) => texts.indexOf(texts[index] ?? '') === index)
}

/**
 * Local parts in lower case, sorted, without doubles; `a@example.com` is taken as `a` in the
 * domain `name`. @throws RefusalError invalid, field `recipients`
 */
export function readRecipients(name: string, raw: readonly string[]): readonly string[] {
  if (raw.length > RECIPIENTS_LIST_MAX) {
    refuse(
      'recipients',
      `${raw.length} recipients are too many for one domain.`,
      `List at most ${RECIPIENTS_LIST_MAX}, or accept any and let the next hop decide.`,
    )
  }
  const parts = raw.map((text) => readLocalPart(name, text)).filter((part) => part !== '')
  return unique(parts).sort()
}

function readLocalPart(name: string, text: string): string {
  const lower = text.trim().toLowerCase()
  const part = lower.endsWith(`@${name}`) ? lower.slice(0, -name.length - 1) : lower
  // Control characters, spaces and a second @ never stand in an address that arrives unquoted.
  if (/[\s@<>"\p{Cc}]/u.test(part)) {
    refuse(
      'recipients',
      `${quote(text)} is not an address of ${name}.`,
      'Enter the part before the @, one a line.',
    )
  }
  if (Buffer.byteLength(part) > LOCAL_PART_BYTES_MAX) {
    refuse(
      'recipients',
      `${quote(text)} is too long.`,
      `The part before the @ has at most ${LOCAL_PART_BYTES_MAX} bytes.`,
    )
  }
  return part
}

/** A threshold of one domain, or null for that of the settings. @throws RefusalError invalid */
export function readThreshold(field: 'hold' | 'reject', raw: number | null): number | null {
  return raw === null ? null : withField(field, () => readSetting(`policy.${field}`, raw) as number)
}

/** Whether DMARC is enforced, or null for what the settings say. @throws RefusalError invalid */
export function readEnforce(raw: unknown): boolean | null {
  if (raw === undefined || raw === null || typeof raw === 'boolean') return raw ?? null
  return refuse('enforce', `${quote(raw)} is neither on nor off.`, 'Enter true, false or nothing.')
}

/** Bounds between the thresholds that are in force for `domain`. @throws RefusalError */
export function checkDomain(domain: Domain, settings: Settings): void {
  const hold = domain.hold ?? settings['policy.hold']
  const reject = domain.reject ?? settings['policy.reject']
  if (hold < reject) return
  const field = domain.reject === null ? 'hold' : 'reject'
  refuse(
    field,
    `Reject must be above hold for ${domain.name}, and they would be ${reject} and ${hold}.`,
    field === 'hold' ? `Enter less than ${reject}.` : `Enter more than ${hold}.`,
  )
}

/** What the cells of a domain hold, as JSON: one a group of fields that must match. */
export function domainGroups(domain: Domain): Readonly<Record<DomainGroup, unknown>> {
  const { nextHops, recipients, hold, reject, enforce } = domain
  // Left out where nothing was said: the text is the same on a node that does not know it.
  const policy = { hold, reject, ...(enforce === null ? {} : { enforce }) }
  return { nextHops: nextHops.map(formatNextHop), recipients, policy }
}

/** The fields that a stored group gives a domain. @throws RefusalError when it does not hold */
export function readDomainGroup(name: string, group: DomainGroup, raw: unknown): Partial<Domain> {
  switch (group) {
    case 'nextHops':
      return { nextHops: Object.freeze(readNextHops(readTexts('nextHops', raw))) }
    case 'recipients':
      return {
        recipients:
          raw === null ? null : Object.freeze(readRecipients(name, readTexts('recipients', raw))),
      }
    case 'policy': {
      if (typeof raw !== 'object' || raw === null) refuse('hold', 'There are no thresholds.', '')
      const { hold, reject, enforce } = raw as Readonly<Record<string, unknown>>
      return {
        hold: readThreshold('hold', readNumberOrNull('hold', hold)),
        reject: readThreshold('reject', readNumberOrNull('reject', reject)),
        enforce: readEnforce(enforce),
      }
    }
  }
}

export type ListName = 'allow' | 'block'
export type ListKind = 'ip' | 'sender'

/** @throws RefusalError notFound, field `list` */
export function readListName(raw: string): ListName {
  if (raw === 'allow' || raw === 'block') return raw
  throw new RefusalError(
    'notFound',
    'list',
    `There is no list ${quote(raw)}.`,
    'The lists are allow and block.',
  )
}

/**
 * What an entry is stored and compared as: a canonical network, or `a@b`, `@b` in lower case and
 * A-labels. @throws RefusalError invalid, field `kind` or `value`
 */
export function readListEntry(
  kind: string,
  raw: string,
): { readonly kind: ListKind; readonly value: string } {
  if (kind !== 'ip' && kind !== 'sender') {
    refuse('kind', `There is no kind ${quote(kind)}.`, 'The kinds are ip and sender.')
  }
  return { kind, value: kind === 'ip' ? readListedNetwork(raw.trim()) : readListedSender(raw) }
}

function readListedNetwork(text: string): string {
  const network = canonicalNetwork(text)
  if (network === null) {
    refuse(
      'value',
      `${quote(text)} is not an address or a network.`,
      'Enter an address like 192.0.2.7, or a network like 192.0.2.0/24 or 2001:db8::/32.',
    )
  }
  if (network.endsWith('/0')) {
    refuse('value', `${network} is the whole Internet.`, 'Enter a smaller network.')
  }
  return network
}

function readListedSender(raw: string): string {
  const text = raw.trim().toLowerCase()
  const address = parseAddress(text.startsWith('@') ? `x${text}` : text)
  if (address === null || address.domain === '') {
    refuse(
      'value',
      `${quote(raw)} is neither an address nor a domain.`,
      'Enter a@example.com for one sender, or @example.com for all of a domain.',
    )
  }
  return text.startsWith('@') ? `@${address.domain}` : `${address.local}@${address.domain}`
}

function readTexts(field: string, raw: unknown): readonly string[] {
  if (Array.isArray(raw) && raw.every((item) => typeof item === 'string')) return raw
  return refuse(field, `${quote(raw)} is not a list of texts.`, 'Enter a list.')
}

function readNumberOrNull(field: string, raw: unknown): number | null {
  if (raw === undefined || raw === null || typeof raw === 'number') return raw ?? null
  return refuse(field, `${quote(raw)} is not a number.`, 'Enter a number, or nothing.')
}

function withField<Result>(field: string, act: () => Result): Result {
  try {
    return act()
  } catch (error) {
    if (!(error instanceof RefusalError)) throw error
    throw new RefusalError(error.code, field, error.message, error.advice)
  }
}

function refuse(field: string, message: string, advice: string): never {
  throw new RefusalError('invalid', field, message, advice)
}

/** What was given, short, on one line. */
function quote(raw: unknown): string {
  if (raw === '') return 'An empty text'
  if (typeof raw === 'object' || typeof raw === 'function') return 'What was given'
  const text = typeof raw === 'string' ? JSON.stringify(raw) : String(raw)
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}

function oneOf(choices: readonly string[]): string {
  return `${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}`
}

function unique<Item>(items: readonly Item[]): Item[] {
  return [...new Set(items)]
}

/** At most three of `known` that a slip of the fingers turns into `word`. */
export function closest(word: string, known: readonly string[]): readonly string[] {
  const lower = word.slice(0, 60).toLowerCase()
  return known
    .map((key) => ({ key, away: distance(lower, key) }))
    .filter(({ key, away }) => away <= Math.max(2, key.length / 3) || endsAlike(lower, key))
    .sort((a, b) => a.away - b.away)
    .slice(0, 3)
    .map(({ key }) => key)
}

/** `hold` is meant as `policy.hold`. */
function endsAlike(word: string, key: string): boolean {
  return word.length >= 3 && key.split('.').includes(word)
}

/** Edit distance: insert, delete, replace. Both texts are short. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
