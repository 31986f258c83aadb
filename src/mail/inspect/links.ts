/**
 * Links: where they lead, and whether they say so. A rule counts once a message, with the first
 * link that met it as evidence; together the rules of `URL_` hold a message and never refuse it.
 */
import { addressesIn } from '../../message/address.ts'
import { fieldValues, plainLine } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import { type Company, deceitsOf, registered } from './deceits.ts'
import type { InspectConfig, Inspector, Look } from './look.ts'
import { type Code, codesOf, DRAWN_CELLS_MIN, isDrawn, picturesOf } from './qr.ts'
import { expandedOf } from './short.ts'
import { skeletonOf } from './skeleton.ts'
import { nestedTarget, openTarget, type Target } from './urls.ts'
import { type Link, type Place, type View, viewOf } from './view.ts'

/** Bounds of message/verdict `Insight.urls`. */
const NOTED_MAX = 100
const NOTED_CHARS_MAX = 500
/** Links that are judged one by one; a mail of more repeats itself. */
const JUDGED_MAX = 300

export const links: Inspector = {
  name: 'links',
  inspect: (look) => {
    const view = viewOf(look.mail)
    const short = expandedOf(view, look)
    const all = short.links.length === 0 ? view.links : [...view.links, ...short.links]
    const findings = [
      ...told(all, companyOf(all, look)),
      ...short.unknown.map(({ url, cause }) => ({
        rule: 'URL_SHORT_UNKNOWN',
        score: 0,
        evidence: `Nobody knows where the short link ${plainLine(url, 100)} leads: ${cause}.`,
      })),
      ...forms(view),
      ...drawings(view),
    ]
    note(all, look)
    const { pictures, drawings: drawn, cells } = view
    if (picturesOf(look.mail).length + pictures.length + drawn.length + cells.length === 0)
      return findings
    return codesOf(look.mail, view).then(({ codes, tooLarge }) => [
      ...findings,
      ...readOut(codes, view, look),
      ...tooLarge.slice(0, 1).map((name) => ({
        rule: 'PICTURE_LIMIT',
        score: 2,
        evidence: `${name} has too many pixels to be searched for codes.`,
      })),
    ])
  },
}

/** What the codes of pictures say: a reader follows it with a phone, past every filter of the office. */
function readOut(codes: readonly Code[], view: View, look: Look): readonly Finding[] {
  if (codes.length === 0) return []
  const found = codes.flatMap(({ text }) => {
    const target = openTarget(text)
    return target === null ? [] : [{ ...linkOf(target, text.trim(), 'qr'), name: text }]
  })
  const [first] = found
  if (first === undefined) return []
  note(found, look)
  const others = view.links.some(({ where }) => where === 'html' || where === 'text')
  const bare = !others || view.text.length < 600
  const name = codes.find(({ text }) => text === first.name)?.name ?? 'a picture'
  return [
    {
      rule: 'URL_QR',
      score: bare ? 2.5 : 1,
      evidence: `A QR code in ${name} leads to ${first.host === '' ? 'no place on the web' : first.host}.`,
    },
    ...told(found, companyOf(found, look)),
  ]
}

/** A code that is drawn is kept from those who read pictures: nobody else draws one. */
function drawings({ html, text }: View): readonly Finding[] {
  const cells = html?.paintedCells ?? 0
  if (cells < DRAWN_CELLS_MIN && !isDrawn(text)) return []
  return [
    {
      rule: 'URL_QR_DRAWN',
      score: 3,
      evidence:
        cells < DRAWN_CELLS_MIN
          ? 'The text draws a code of block characters.'
          : `A table of ${cells} coloured cells draws a code.`,
    },
  ]
}

/**
 * Judges links that an inspector found elsewhere, e.g. in a document, as those of the message
 * are. `note` gets them for the message page. Never throws.
 */
export function judgeLinks(
  urls: readonly string[],
  where: Place,
  look: Pick<Look, 'config' | 'session' | 'note'>,
): readonly Finding[] {
  const found: Link[] = []
  for (const written of urls.slice(0, JUDGED_MAX)) {
    const target = openTarget(written)
    if (target === null) continue
    found.push(linkOf(target, written, where))
    const inner = nestedTarget(target.url)
    if (inner !== null) {
      found.push({ ...linkOf(inner, inner.url, where), via: target.url })
    }
  }
  note(found, look)
  return told(found, companyOf(found, look))
}

function linkOf(target: Target, written: string, where: Place): Link {
  return { ...target, written, shown: null, where, tag: '', via: null, spelled: null }
}

/** One finding a rule: its heaviest, and how many others there are. */
function told(found: readonly Link[], company: Company): readonly Finding[] {
  const heaviest = new Map<string, Finding>()
  const counts = new Map<string, number>()
  for (const link of found.slice(0, JUDGED_MAX)) {
    for (const finding of deceitsOf(link, company)) {
      const { rule, score } = finding
      counts.set(rule, (counts.get(rule) ?? 0) + 1)
      if (score > (heaviest.get(rule)?.score ?? 0)) heaviest.set(rule, finding)
    }
  }
  return [...heaviest.values()].map((finding) => {
    const others = (counts.get(finding.rule) ?? 1) - 1
    if (others === 0) return finding
    const more = others === 1 ? 'One more link is' : `${others} more links are`
    return { ...finding, evidence: `${finding.evidence} ${more} of this kind.` }
  })
}

function note(found: readonly Link[], { note: tell }: Pick<Look, 'note'>): void {
  const urls = new Set<string>()
  // Pages before pictures: a newsletter has hundreds of those.
  for (const image of [false, true]) {
    for (const { url, where } of found) {
      if (urls.size >= NOTED_MAX) break
      if ((where === 'image') === image) urls.add(plainLine(url, NOTED_CHARS_MAX))
    }
  }
  if (urls.size > 0) tell({ urls: [...urls] })
}

/** A form in a mail asks for what a page of the sender's should ask for. */
function forms({ html, links: found }: View): readonly Finding[] {
  if (html === null || html.forms === 0) return []
  const target = found.find(({ where, host }) => where === 'form' && host !== '')
  const goes = target === undefined ? '' : ` and sends it to ${target.host}`
  if (html.passwords > 0) {
    return [
      {
        rule: 'URL_FORM_PASSWORD',
        score: 5,
        evidence: `The message holds a form that asks for a password${goes}.`,
      },
    ]
  }
  if (target === undefined) return []
  return [
    {
      rule: 'URL_FORM',
      score: 0.5,
      evidence: `The message holds a form that asks for data${goes}.`,
    },
  ]
}

const guardedOf = new WeakMap<InspectConfig, ReadonlyMap<string, string>>()

/** Domains of ours and those of the settings, with how their first label looks. */
function guarded(config: InspectConfig): ReadonlyMap<string, string> {
  const known = guardedOf.get(config)
  if (known !== undefined) return known
  const domains = [...config.domains, ...config.settings['sender.lookalikes']]
  const found = new Map(
    domains.map((domain) => [
      registered(domain),
      skeletonOf(registered(domain).split('.')[0] ?? ''),
    ]),
  )
  guardedOf.set(config, found)
  return found
}

function companyOf(
  found: readonly Link[],
  look: Pick<Look, 'config' | 'session'> & Partial<Pick<Look, 'mail'>>,
): Company {
  const { session, config, mail } = look
  const senders = new Set<string>()
  if (session.sender !== '') senders.add(registered(session.sender))
  if (mail !== undefined) {
    for (const author of addressesIn(fieldValues(mail.header, 'from').join(','), 5)) {
      senders.add(registered(author))
    }
  }
  const counts = new Map<string, number>()
  for (const { domain, where } of found) {
    if (where === 'header') senders.add(domain)
    else if (where === 'html') counts.set(domain, (counts.get(domain) ?? 0) + 1)
  }
  const readers = session.recipients.slice(0, 20).flatMap((recipient) => {
    const address = recipient.toLowerCase()
    return [address, Buffer.from(recipient).toString('base64').replace(/=+$/, '')]
  })
  return { guarded: guarded(config), senders, readers, counts }
}
