/** The first screen: is this node well, what came in, what waits for somebody. */
import { Elysia, t } from 'elysia'
import type { Admin, NodeStatus, OverviewNumbers } from '../../src/admin/contract.ts'
import type { Clock } from '../../src/base/clock.ts'
import { type Html, html } from '../html.ts'
import { link } from '../parts/forms.ts'
import { badge, glyph, type Mark, note } from '../parts/marks.ts'
import {
  isLiving,
  members,
  type NodeView,
  queuedOnAll,
  sinceWords,
  stateBadge,
} from '../parts/nodes.ts'
import { bars, plot } from '../parts/plot.ts'
import { ruleWords } from '../parts/rules.ts'
import { shell } from '../parts/shell.ts'
import { count, counted, sender, size, span, subjectOf } from '../parts/words.ts'
import type { Site } from '../site.ts'

type Range = { readonly key: string; readonly hours: number; readonly buckets: number }

const RANGES: readonly Range[] = [
  { key: '1h', hours: 1, buckets: 60 },
  { key: '24h', hours: 24, buckets: 48 },
  { key: '7d', hours: 168, buckets: 56 },
  { key: '30d', hours: 720, buckets: 60 },
]
const DAY: Range = { key: '24h', hours: 24, buckets: 48 }

export function overviewPage(site: Site) {
  return new Elysia().get(
    '/',
    async ({ request, query }) => {
      const range = rangeOf(query.t)
      const main = html`<div class="head"><h1>Overview</h1>
<nav class="acts seg" aria-label="Time range">${RANGES.map(({ key }) => html`<a href="${link('/', { t: key })}"${key === range.key ? html` aria-current="true"` : ''}>${key.replace(/(\d+)/, '$1 ')}</a>`)}</nav></div>
<div class="stack" id="numbers">${await numbers(site, range)}</div>`
      return shell(site, site.guard.visitOf(request), {
        title: 'Overview',
        at: 'overview',
        main,
        poll: { t: range.key },
      })
    },
    { query: t.Object({ t: t.Optional(t.String({ maxLength: 10 })) }) },
  )
}

export function rangeOf(key: string | undefined): Range {
  return RANGES.find((range) => range.key === key) ?? DAY
}

/** Everything that changes by itself; the poll swaps it as a whole. */
export async function numbers(site: Pick<Site, 'admin' | 'clock'>, range: Range): Promise<Html> {
  const { admin, clock } = site
  const nowMs = clock.wallMs()
  const status = admin.status()
  const sinceMs = nowMs - range.hours * 3_600_000
  const overview = admin.overview(sinceMs, range.buckets)
  const seen = Object.values(overview.counts).reduce((sum, value) => sum + value, 0)
  const domains = admin.domains()
  const begin = domains.length === 0 || seen === 0
  return html`${status.ready ? '' : note('dead', html`<b>This node takes no mail.</b> ${status.problems.join(' ')}`)}
${health(site, status, nowMs)}
<div class="main-aside"><div class="stack">
<section class="card" aria-labelledby="t1"><h2 class="sr" id="t1">Mails since ${span(range.hours * 3_600_000)} ago</h2>
${tiles(overview, range)}
${plot(overview.series, nowMs)}
</section>
<div class="cols">${top(overview, range)}</div>
</div>
<div class="stack">${
    begin
      ? nextSteps(
          status,
          domains.map(({ name }) => name),
          seen > 0,
        )
      : ''
  }
${latestHeld(admin, clock)}
${await waiting(admin, status, nowMs)}
</div></div>`
}

function health({ admin }: Pick<Site, 'admin'>, status: NodeStatus, nowMs: number): Html {
  const { queue, disk, inspectors } = status
  const free = disk.totalBytes === 0 ? 1 : disk.freeBytes / disk.totalBytes
  const oldest = queue.oldestMs === null ? 0 : nowMs - queue.oldestMs
  const check = (mark: Mark, bold: string, words: string) =>
    html`<li><i class="g ${mark} c"></i><b>${bold}</b> ${words}</li>`
  const enough = inspectors.ready >= inspectors.processes
  const nodes = members(admin.cluster())
  const alone = html`<div><b>${status.name}${status.ready ? badge('alive', 'Ready') : badge('dead', 'Not ready')}</b><span>Mail on ${status.smtp}, version ${status.version}, up ${span(nowMs - status.startedMs)}</span></div>`
  return html`<section class="strip${nodes.length === 1 ? ' one' : ''}" aria-label="Health">
${nodes.length === 1 ? alone : nodeLinks(nodes, nowMs)}
<ul class="checks">
${check(oldest > 3_600_000 ? 'warn' : 'pass', counted(queue.messages, 'mail'), `in the queue${queue.oldestMs === null ? '' : `, oldest ${span(oldest)}`}`)}
${check(enough ? 'pass' : 'warn', `${inspectors.ready} of ${counted(inspectors.processes, 'inspector')}`, enough ? 'ready' : 'ready, the others are starting')}
${inspectors.missing.length === 0 ? '' : check('warn', 'Weaker walls', `this host lacks ${inspectors.missing.join(', ')}`)}
${check(free < 0.1 ? 'warn' : 'pass', `${Math.round(free * 100)} % of the disk`, `free, ${size(disk.freeBytes)}`)}
${status.possibleDuplicates === 0 ? '' : check('warn', counted(status.possibleDuplicates, 'delivery', 'deliveries'), 'may have arrived twice')}
</ul></section>`
}

/** Nodes that the strip shows one by one. */
const STRIP_MAX = 6

function nodeLinks(nodes: readonly NodeView[], nowMs: number): Html {
  const few = nodes.length <= STRIP_MAX
  const shown = few ? nodes : nodes.filter(({ here, state }) => here || state !== 'alive')
  const first = shown.slice(0, STRIP_MAX - (few ? 0 : 1))
  const rest = nodes.length - first.length
  const links = first.map((node) => {
    const { id, name, here, report, sinceMs, state } = node
    const said =
      report === null
        ? 'It has not said how it is'
        : `Queue ${count(report.queue)}, held ${count(report.held)}`
    const words = isLiving(node)
      ? `${said}${here || node.lagRows > 0 ? '' : ', in step'}`
      : `${state === 'dead' ? 'No answer' : 'No answer just now'}${sinceWords(sinceMs, nowMs)}`
    return html`<a href="/cluster#n-${id}"><b><span class="cut">${name}</span>${here ? html` <small>you are here</small>` : ''}${stateBadge(node)}</b><span>${words}</span></a>`
  })
  if (rest === 0) return html`${links}`
  return html`${links}<a href="/cluster"><b>${count(rest)} more</b><span>${shown.length > first.length ? 'not all of them alive' : 'all of them alive'}</span></a>`
}

const TILES: readonly (readonly [
  state: keyof OverviewNumbers['counts'],
  mark: Mark,
  word: string,
  more: string,
])[] = [
  ['delivered', 'delivered', 'Delivered', 'to the next hop'],
  ['held', 'held', 'Held', 'in quarantine'],
  ['rejected', 'rejected', 'Rejected', 'at the door'],
  ['deferred', 'deferred', 'Deferred', 'asked to retry'],
  ['waiting', 'none', 'Waiting', 'in the queue'],
  ['bounced', 'rejected', 'Bounced', 'by the next hop'],
]

function tiles({ counts }: OverviewNumbers, range: Range): Html {
  return html`<div class="tiles six">${TILES.map(
    ([state, mark, word, more]) =>
      html`<a href="${link('/messages', { q: `is:${state} after:${range.key}` })}"><span>${glyph(mark)}${word}</span><b>${count(counts[state])}</b><small>${more}</small></a>`,
  )}</div>`
}

function top({ topRules, topSenders }: OverviewNumbers, range: Range): readonly Html[] {
  const none = html`<div class="body"><small>None in this time.</small></div>`
  const rules = topRules.map(({ rule, count: value }) => ({
    words: ruleWords(rule),
    small: rule,
    value,
    path: link('/messages', { q: `rule:${rule} after:${range.key}` }),
  }))
  const senders = topSenders.map(({ sender: address, count: value }) => ({
    words: sender(address),
    small: '',
    value,
    path: link('/messages', { q: `from:${quoted(address)} after:${range.key}` }),
  }))
  return [
    html`<section class="card"><header><h2>Rules that decided</h2><small>mails</small></header>${rules.length === 0 ? none : bars(rules)}</section>`,
    html`<section class="card"><header><h2>Senders rejected or held most</h2><small>mails</small></header>${senders.length === 0 ? none : bars(senders)}</section>`,
  ]
}

function quoted(text: string): string {
  return /[\s",]/.test(text) ? `"${text.replaceAll('"', '')}"` : text
}

function nextSteps(status: NodeStatus, domains: readonly string[], seen: boolean): Html {
  const [first] = domains
  const step = (done: boolean, words: Html, button: Html | '') =>
    html`<li${done ? html` class="done"` : ''}>${glyph(done ? 'pass' : 'none')}<div>${words}</div>${button}</li>`
  return html`<section class="card" aria-labelledby="todo"><header><h2 id="todo">Next steps</h2></header><ul class="todo">
${step(domains.length > 0, first === undefined ? html`<b>Add your domain</b><br><small>Until then every recipient is refused.</small>` : html`Takes mail for ${first}`, first === undefined ? html`<a class="btn small" href="/domains/new">Add</a>` : '')}
${step(seen, html`<b>Send a test mail</b><br><small>Connect to <code>${status.smtp}</code> and write to an address of ${first ?? 'your domain'}. A mail with the text GTUBE is held.</small>`, '')}
${step(seen, html`<b>Point the MX records here</b><br><small>Mail comes in when the MX of ${first ?? 'your domain'} names this machine.</small>`, '')}
</ul></section>`
}

function latestHeld(admin: Admin, clock: Clock): Html {
  const held = admin.held({ text: '', limit: 5, cursor: null })
  const nowMs = clock.wallMs()
  const list = held.rows.map(
    (row) =>
      html`<li>${glyph('held')}<div class="two" hx-ignore><a href="/messages/${row.id}">${subjectOf(row.subject)}</a><small>${sender(row.sender)}, ${span(nowMs - row.heldMs)} ago</small></div></li>`,
  )
  return html`<section class="card" aria-labelledby="lh"><header><h2 id="lh">Held last</h2><a class="btn small" href="/quarantine">All ${count(held.total)}</a></header>${list.length === 0 ? html`<div class="body"><small>Nothing is held.</small></div>` : html`<ul class="todo">${list}</ul>`}</section>`
}

async function waiting(admin: Admin, status: NodeStatus, nowMs: number): Promise<Html> {
  const { rows } = await admin.queue({ limit: 5, cursor: null })
  const all = queuedOnAll(admin.cluster(), status.queue.messages)
  const list = rows.map((row) => {
    const said = row.recipients.find(({ lastReply }) => lastReply !== null)?.lastReply
    return html`<li>${glyph(row.state === 'deferred' ? 'deferred' : 'none')}<div class="two" hx-ignore><a href="/messages/${row.id}">${row.recipients[0]?.address ?? ''}</a><small>${said ?? `since ${span(nowMs - row.acceptedMs)}`}</small></div></li>`
  })
  return html`<section class="card" aria-labelledby="qu"><header><h2 id="qu">Queue</h2><a class="btn small" href="/queue">All ${count(all)}</a></header>${list.length === 0 ? html`<div class="body"><small>Nothing waits for delivery.</small></div>` : html`<ul class="todo">${list}</ul>`}</section>`
}
