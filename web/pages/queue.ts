/** What waits for delivery: why, when again; deliver now, give up. */
import { Elysia, t } from 'elysia'
import { RefusalError } from '../../src/base/errors.ts'
import { some } from '../../src/base/prose.ts'
import type { NodeName, QueueRow } from '../../src/message/rows.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, safePath, seeOther } from '../html.ts'
import { act, csrf, mayAct } from '../parts/forms.ts'
import { copyWords, type Holders, holders } from '../parts/holder.ts'
import { beforeOf, ROWS, turning } from '../parts/lists.ts'
import { empty, note, type Place, track } from '../parts/marks.ts'
import { attemptWords, nextWords } from '../parts/message-cards.ts'
import { members, queuedOnAll } from '../parts/nodes.ts'
import { shell } from '../parts/shell.ts'
import { counted, sender, shortTime, span, subjectOf, time } from '../parts/words.ts'
import type { Site } from '../site.ts'

const ID = t.Object({ id: t.String({ maxLength: 64 }) })
const BACK = t.Object({ back: t.Optional(t.String({ maxLength: 2_000 })) })

export function queuePages(site: Site) {
  const { admin, guard, flashes } = site
  /** Says what was done; that its owner went away in this moment is a sentence too. */
  const told = async (session: string | null, run: () => Promise<string>) => {
    try {
      flashes.add(session, await run())
    } catch (error) {
      if (!(error instanceof RefusalError) || error.code !== 'unavailable') throw error
      flashes.add(session, `${error.message} ${error.advice}`, { kind: 'failed' })
    }
  }
  return new Elysia({ prefix: '/queue' })
    .get('/', ({ request, query }) => listPage(site, request, query), {
      query: t.Object({
        cursor: t.Optional(t.String({ maxLength: 200 })),
        before: t.Optional(t.String({ maxLength: 20 })),
        alone: t.Optional(t.String({ maxLength: 1 })),
      }),
    })
    .post(
      '/retry',
      async ({ request }) => {
        const { retried, silent } = await admin.retry(guard.authorOf(request), null)
        const names = silent.map(({ name }) => name)
        const rest = names.length === 0 ? '' : `; ${some(names, 3)} gave no answer`
        flashes.add(guard.visitOf(request).session, `${counted(retried, 'mail')} due now${rest}`)
        return seeOther('/queue')
      },
      { body: BACK },
    )
    .post(
      '/:id/retry',
      async ({ request, params, body }) => {
        const { session } = guard.visitOf(request)
        await told(session, async () => {
          const { retried } = await admin.retry(guard.authorOf(request), params.id)
          return retried === 0 ? 'This mail no longer waits' : 'The mail is delivered now'
        })
        return seeOther(safePath(body.back, '/queue'))
      },
      { params: ID, body: BACK },
    )
    .get('/:id/drop', ({ request, params }) => dropPage(site, request, params.id), { params: ID })
    .post(
      '/:id/drop',
      async ({ request, params, body }) => {
        const bounce = body.bounce === 'yes'
        await told(guard.visitOf(request).session, async () => {
          await admin.drop(guard.authorOf(request), params.id, bounce)
          return `Gave up on one mail, ${bounce ? 'the sender is told' : 'nobody is told'}`
        })
        return seeOther('/queue')
      },
      { params: ID, body: t.Object({ bounce: t.Optional(t.String({ maxLength: 10 })) }) },
    )
}

type Asked = { readonly cursor?: string; readonly before?: string; readonly alone?: string }

async function listPage(
  site: Site,
  request: Request,
  { cursor, before, alone: only }: Asked,
): Promise<Response> {
  const { admin, clock } = site
  const visit = site.guard.visitOf(request)
  const alone = only === '1'
  const found = await admin.queue({ limit: ROWS, cursor: cursor ?? null, alone })
  const skipped = cursor === undefined ? 0 : beforeOf(before)
  const nowMs = clock.wallMs()
  const view = admin.cluster()
  const facts: Facts = { nowMs, visit, by: holders(site), nodes: members(view).length > 1 }
  const all =
    mayAct(visit) && found.total > 0 && !alone
      ? html`<div class="acts">${act(visit, '/queue/retry', { words: 'Deliver all now' })}</div>`
      : ''
  const list =
    found.rows.length === 0
      ? alone
        ? empty(
            'Every waiting mail has a copy',
            html`Each of them is on the disks of two nodes.`,
            html`<a class="btn" href="/queue">Show all waiting mails</a>`,
          )
        : empty(
            'The queue is empty',
            html`Mails wait here when the next hop does not take them at once.`,
          )
      : html`<table class="data plain"><caption class="sr">Waiting mails, newest first</caption>
<thead><tr><th class="w-time" scope="col">Since</th><th scope="col">Mail</th><th class="w-state" scope="col">State</th><th scope="col">Why</th>${mayAct(visit) ? html`<th class="w-acts" scope="col"><span class="sr">Actions</span></th>` : ''}</tr></thead>
<tbody>${found.rows.map((row) => line(row, facts))}</tbody></table>`
  const main = html`<div class="head"><h1>Queue</h1><p>${howMany(found.total, alone)}</p>${all}</div>
${facts.nodes ? kinds(alone) : ''}
${silentNote(found.silent)}
<div id="fresh"></div>
<section class="card" id="list" aria-label="Waiting mails">${list}</section>
${turning({ path: '/queue', query: '', also: alone ? { alone: '1' } : {}, cursor: found.cursor, before: skipped, rows: found.rows.length, total: found.total })}`
  const seen = queuedOnAll(view, admin.status().queue.messages)
  return shell(site, visit, {
    title: 'Queue',
    at: 'queue',
    main,
    poll: { seen: skipped === 0 && !alone ? String(seen) : '' },
  })
}

function howMany(total: number, alone: boolean): string {
  if (total === 0) return 'Nothing waits'
  const mails = counted(total, 'mail')
  return alone ? `${mails} on one node only` : `${mails} accepted and not delivered yet`
}

function kinds(alone: boolean): Html {
  const here = html` aria-current="true"`
  return html`<nav class="seg" aria-label="Kind"><a href="/queue"${alone ? '' : here}>All</a><a href="/queue?alone=1"${alone ? here : ''}>Only one copy</a></nav>`
}

/** Nodes that gave no answer: the list goes on without them. */
function silentNote(silent: readonly NodeName[]): Html | '' {
  if (silent.length === 0) return ''
  const names = some(
    silent.map(({ name }) => name),
    3,
  )
  const [gives, its] = silent.length === 1 ? ['gives', 'its'] : ['give', 'their']
  return note(
    'unknown',
    html`<b>${names} ${gives} no answer.</b> Of ${its} queue, this list has what other nodes keep copies of.`,
    html`<a href="/alerts">What it means</a>`,
  )
}

const STATE: Readonly<Record<QueueRow['state'], Place>> = {
  queued: { door: 'delivered', after: 'none', word: 'Waiting', more: '' },
  deferred: { door: 'delivered', after: 'deferred', word: 'Deferred', more: '' },
  inDoubt: { door: 'delivered', after: 'unknown', word: 'In doubt', more: '' },
}

type Facts = {
  readonly nowMs: number
  readonly visit: Visit
  readonly by: Holders
  /** There is more than one node to wait on. */
  readonly nodes: boolean
}

function line(row: QueueRow, { nowMs, visit, by, nodes }: Facts): Html {
  const open = row.recipients.filter(
    ({ state }) => !['done', 'failed', 'dropped', 'held'].includes(state),
  )
  const [first] = open
  const silence = by.silence(row.owner)
  const attempts = Math.max(0, ...open.map((one) => one.attempts))
  const next = open.map(({ nextTryMs }) => nextTryMs).filter((at) => at !== null)
  const when =
    first === undefined || silence !== null
      ? ''
      : nextWords(next.length === 0 ? null : Math.min(...next), nowMs).slice(2)
  const reply = open.find(({ lastReply }) => lastReply !== null)?.lastReply ?? null
  const why =
    silence === null
      ? row.waits === null
        ? html`<span>${reply ?? 'Waits for its turn'}</span><small>${when}</small>`
        : html`<span class="c unknown">${row.waits}</span><small>${reply ?? when}</small>`
      : html`<span class="c unknown">${row.owner.name} ${silence === '' ? 'is gone; it is being taken over' : 'gives no answer'}</span><small>${silence === '' ? '' : `${silence}. `}${reply ?? ''}</small>`
  const copies = by.copies(row)
  const path = `/queue/${row.id}`
  const acts = !mayAct(visit)
    ? ''
    : html`<td class="full num"><div class="acts right">${silence === null ? html`${act(visit, `${path}/retry`, { words: 'Deliver now', small: true })}<a class="btn small danger" href="${path}/drop">Give up</a>` : ''}</div></td>`
  const state = STATE[row.state]
  return html`<tr><td class="a3 nowrap">${time(row.acceptedMs, shortTime(row.acceptedMs, nowMs))}${nodes ? html`<br><small>${row.owner.name}</small>` : ''}</td><td class="a2"><div class="two" hx-ignore><a href="/messages/${row.id}">${subjectOf(row.subject)}</a><small>${sender(row.sender)} → ${some(
    open.map(({ address }) => address),
    1,
  )}</small></div></td><td class="full"><div class="two state">${track(silence === null ? state : { ...state, after: 'unknown', word: `With ${row.owner.name}` })}<small>${attemptWords(attempts).toLowerCase()}</small>${copies.length === 0 ? '' : html`<small>${copyWords(copies)}</small>`}</div></td><td class="full"><div class="two why" hx-ignore>${why}</div></td>${acts}</tr>`
}

async function dropPage(site: Site, request: Request, id: string): Promise<Response> {
  const visit = site.guard.visitOf(request)
  const { queue } = await site.admin.message(id)
  if (queue === null) {
    throw new RefusalError(
      'notFound',
      'id',
      'This mail does not wait in the queue.',
      'Look at its page.',
    )
  }
  const nowMs = site.clock.wallMs()
  const main = html`<div class="head"><h1>Give up on this mail?</h1></div>
<form class="card" method="post" action="/queue/${id}/drop">${csrf(visit)}
<div class="body first stack"><div hx-ignore><p><b>${subjectOf(queue.subject)}</b><br><span class="muted">from ${sender(queue.sender)} to ${some(
    queue.recipients.map(({ address }) => address),
    5,
  )}, ${span(nowMs - queue.acceptedMs)} old</span></p></div>
<p>Postern stops trying to deliver it. This cannot be undone.</p>
<fieldset class="stack"><legend class="sr">Is the sender told?</legend>
<label><input type="radio" name="bounce" value="yes" checked> Tell the sender that it was not delivered</label>
<label><input type="radio" name="bounce" value="no"> Tell nobody: the mail is lost without a trace for its sender</label></fieldset>
<div class="acts"><button class="btn danger">Give up</button><a class="btn quiet" href="/messages/${id}">Keep trying</a></div></div></form>`
  return shell(site, visit, { title: 'Give up on a mail', at: 'queue', main })
}
