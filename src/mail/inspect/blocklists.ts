/**
 * Domains and addresses of links in lists of the DNS (RFC 5782): the host, and the domain that
 * somebody registered. A list that does not answer makes the message unknown in part: it says so,
 * and weighs nothing.
 */
import { isIP, isIPv4 } from 'node:net'
import { parseListZone } from '../../config/lines.ts'
import { reversed, ruleOf, weigh } from '../../config/zones.ts'
import type { Finding } from '../../message/verdict.ts'
import type { Inspector, Look } from './look.ts'
import { viewOf } from './view.ts'

/** Questions of one message: a mail with a thousand links asks for its first ones. */
const LOOKUPS_MAX = 50
/** What lists of links weigh together: a person may look and release. */
const SCORE_MAX = 12.5

/** A host or domain of a link, and the name under which lists have it. */
type Subject = { readonly about: string; readonly name: string }

export const blocklists: Inspector = { name: 'blocklists', inspect }

function inspect(look: Look): readonly Finding[] {
  const lists = look.config.settings['content.linkLists'].flatMap(
    (line) => parseListZone(line) ?? [],
  )
  if (lists.length === 0) return []
  const findings: Finding[] = []
  const silent = new Map<string, string>()
  const said = { answers: 0, failures: 0, later: 0 }
  const all = subjectsOf(look)
  const subjects = all.slice(0, Math.max(1, Math.floor(LOOKUPS_MAX / lists.length)))
  for (const { about, name } of subjects) {
    for (const list of lists) {
      const answer = look.names.ask({ name: `${name}.${list.zone}`, type: 'A' })
      if (answer === null) said.later += 1
      else if (answer.status === 'failed') {
        silent.set(list.zone, answer.cause)
        if (answer.leftOut !== true) said.failures += 1
      } else said.answers += 1
      const listing = answer?.status === 'found' ? weigh(list, answer.records) : null
      if (listing === null) continue
      findings.push({
        rule: ruleOf('URIBL', list.zone),
        score: listing.score,
        evidence: `A link leads to ${about}, which ${list.zone} lists with ${listing.codes.join(' and ')}.`,
      })
    }
  }
  // One list of several may be slow. When nobody knows anything, the message was not looked at.
  const { answers, failures, later } = said
  if (later === 0 && answers === 0 && failures > 0) {
    throw new Error(`no list of links answers: ${[...silent.values()][0] ?? ''}`)
  }
  const rest = all.length - subjects.length
  return [
    ...capped(once(findings)),
    ...[...silent].map(unknown),
    ...(rest === 0 ? [] : [partial(subjects.length, rest)]),
  ]
}

/** Hosts first in the order of the links; the domain of a host right behind it. */
function subjectsOf({ mail }: Look): readonly Subject[] {
  const subjects = new Map<string, string>()
  for (const { host, domain } of viewOf(mail).links) {
    if (isIP(host) !== 0) subjects.set(host, reversed(host) ?? host)
    else {
      for (const name of [domain, host]) if (isListable(name)) subjects.set(name, name)
    }
  }
  return [...subjects].map(([about, name]) => ({ about, name }))
}

/** Lists know names with a dot, of a length that fits before their own. */
function isListable(name: string): boolean {
  return name.includes('.') && name.length <= 200 && !isIPv4(name)
}

/** A list counts once, with its heaviest answer: ten links to one place are one place. */
function once(findings: readonly Finding[]): readonly Finding[] {
  const best = new Map<string, Finding>()
  for (const finding of findings) {
    const known = best.get(finding.rule)
    if (known === undefined || finding.score > known.score) best.set(finding.rule, finding)
  }
  return [...best.values()]
}

/** What is too much together is taken off the last ones. */
function capped(findings: readonly Finding[]): readonly Finding[] {
  let left = SCORE_MAX
  return findings.map((finding) => {
    const score = Math.min(finding.score, left)
    left -= Math.max(0, score)
    return { ...finding, score }
  })
}

function unknown([zone, cause]: readonly [string, string]): Finding {
  return {
    rule: 'URIBL_UNKNOWN',
    score: 0,
    evidence: `Whether ${zone} lists a link of this message is not known: ${cause}`,
  }
}

function partial(asked: number, rest: number): Finding {
  return {
    rule: 'URIBL_PARTIAL',
    score: 0,
    evidence: `Links of this message lead to many places: the first ${asked} were looked up in lists, ${rest} were not.`,
  }
}
