/**
 * Short links as questions: an inspector asks where one leads as it asks for a name, and the main
 * process answers out of expand.ts. The name lies under `.invalid`, which no server has (RFC 6761
 * section 6.4), so that nobody else is ever asked.
 */
import type { DnsQuestion } from '../../base/names.ts'
import type { Look } from './look.ts'
import { SHORTENERS } from './places.ts'
import { nestedTarget, openTarget } from './urls.ts'
import type { Link, View } from './view.ts'

const SUFFIX = '.short-link.invalid'
/** Octets of a link that fits into a name; short links are short. */
const URL_BYTES_MAX = 110
/** Links of one mail that are asked about. */
const ASKED_MAX = 5

/** The question for `url`; null: it is too long for one. Hex, since names know no upper case. */
export function questionOf(url: string): DnsQuestion | null {
  const bytes = Buffer.from(url)
  if (bytes.length > URL_BYTES_MAX) return null
  const labels = bytes.toString('hex').match(/.{1,60}/g) ?? []
  return { name: `${labels.join('.')}${SUFFIX}`, type: 'TXT' }
}

/** The link that a question is about; null: it is about a name. */
export function askedLink({ name }: DnsQuestion): string | null {
  if (!name.endsWith(SUFFIX)) return null
  return Buffer.from(name.slice(0, -SUFFIX.length).replaceAll('.', ''), 'hex').toString()
}

export type Expanded = {
  /** Where the short ones lead, each with `via`. */
  readonly links: readonly Link[]
  /** Short links whose end nobody knows, and why. */
  readonly unknown: readonly { readonly url: string; readonly cause: string }[]
}

const NOTHING: Expanded = { links: [], unknown: [] }

/**
 * Asks about the first short links of a mail, where the settings want it. What is not answered
 * yet is in neither list: the inspector is called again.
 */
export function expandedOf(
  view: View,
  { config, names }: Pick<Look, 'config' | 'names'>,
): Expanded {
  if (config.settings['content.expandLinks'] !== 'on') return NOTHING
  const urls = view.links.filter(({ host, where }) => where !== 'image' && SHORTENERS.has(host))
  const links: Link[] = []
  const unknown: { url: string; cause: string }[] = []
  const asked = new Set<string>()
  for (const link of urls) {
    if (asked.has(link.url)) continue
    if (asked.size >= ASKED_MAX) break
    asked.add(link.url)
    const question = questionOf(link.url)
    const answer = question === null ? null : names.ask(question)
    if (question === null) unknown.push({ url: link.url, cause: 'it is too long for a short link' })
    if (answer === null) continue
    if (answer.status === 'failed') unknown.push({ url: link.url, cause: answer.cause })
    const target = answer.status === 'found' ? openTarget(answer.records[0] ?? '') : null
    if (target === null) continue
    links.push({ ...link, ...target, written: target.url, via: link.url, spelled: null })
    const inner = nestedTarget(target.url)
    if (inner !== null) {
      links.push({ ...link, ...inner, written: inner.url, via: target.url, spelled: null })
    }
  }
  return { links, unknown }
}
