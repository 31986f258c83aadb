/** One mail: where it is, why, what it holds; release, delete, retry, give up. */
import { Elysia, t } from 'elysia'
import type { HeldDetail, MessageDetail } from '../../src/admin/contract.ts'
import { RefusalError } from '../../src/base/errors.ts'
import { some } from '../../src/base/prose.ts'
import { addressesIn } from '../../src/message/address.ts'
import type { Judgement } from '../../src/message/rows.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, safePath, seeOther } from '../html.ts'
import { answer } from '../parts/answer.ts'
import { act, csrf, link, mayAct } from '../parts/forms.ts'
import {
  canRelease,
  holders,
  isDoubtful,
  isPending,
  pendingNote,
  waitsFor,
  waitsNote,
} from '../parts/holder.ts'
import { limitsOf } from '../parts/lists.ts'
import {
  absentCard,
  attachmentsCard,
  hopsCard,
  mailCard,
  previewOf,
  viewOf,
} from '../parts/mail.ts'
import { note } from '../parts/marks.ts'
import { factsCard, pathCard, queueCard, recipientsCard, whyCard } from '../parts/message-cards.ts'
import { shell } from '../parts/shell.ts'
import { againCard, contentCard, senderCard } from '../parts/verdict-cards.ts'
import { counted, subjectOf } from '../parts/words.ts'
import type { Site } from '../site.ts'

const ID = t.Object({ id: t.String({ maxLength: 64 }) })
const WHOSE = t.Object({
  recipient: t.Optional(t.String({ maxLength: 400 })),
  back: t.Optional(t.String({ maxLength: 2_000 })),
  anyway: t.Optional(t.String({ maxLength: 3 })),
})

export function messagePages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/messages/:id' })
    .get(
      '/',
      ({ request, params, query }) => messagePage(site, request, params.id, { view: query.view }),
      {
        params: ID,
        query: t.Object({ view: t.Optional(t.String({ maxLength: 20 })) }),
      },
    )
    .post(
      '/release',
      async ({ request, params, body }) => {
        const { session } = guard.visitOf(request)
        try {
          const before = admin.heldOne(params.id)
          const whom = body.recipient ?? some(before.row.recipients)
          const anyway = body.anyway === 'yes'
          const author = guard.authorOf(request)
          const after = await admin.release(author, params.id, body.recipient, anyway)
          const subject = `“${subjectOf(before.row.subject)}”`
          flashes.add(
            session,
            isPending(after, 'release', body.recipient)
              ? `Noted the release of ${subject}; ${waitsFor(after)}`
              : `Released ${subject} to ${whom}`,
          )
          return seeOther(safePath(body.back, `/messages/${params.id}`))
        } catch (error) {
          if (!isAnswer(error)) throw error
          return await messagePage(site, request, params.id, { refusal: error })
        }
      },
      { params: ID, body: WHOSE },
    )
    .post(
      '/again',
      async ({ request, params }) => {
        const again = await admin.heldAgain(params.id)
        return await messagePage(site, request, params.id, { again })
      },
      { params: ID },
    )
    .post(
      '/learn',
      async ({ request, params, body }) => {
        const { as = '' } = body
        const { session } = guard.visitOf(request)
        const lesson = await admin.learnHeld(guard.authorOf(request), params.id, as)
        const { label, subject, flip } = lesson
        const words = label === null ? 'no longer counts' : `is learnt as ${LABELS[label]}`
        const others =
          flip === null
            ? ''
            : `; ${counted(flip.recipients, 'recipient')} got a link or a file of it`
        flashes.add(session, `“${subjectOf(subject)}” ${words}, on all nodes${others}`)
        // Who has it already is what somebody wants to know next.
        return flip === null
          ? seeOther(`/messages/${params.id}`)
          : seeOther(link('/messages', { q: flip.query }))
      },
      { params: ID, body: t.Object({ as: t.Optional(t.String({ maxLength: 20 })) }) },
    )
    .post(
      '/list',
      async ({ request, params, body }) => {
        const author = guard.authorOf(request)
        const list = body.list === 'allow' ? 'allow' : 'block'
        const { row } = admin.heldOne(params.id)
        const value = addressToList(row)
        admin.addListEntry(author, { list, kind: 'sender', value, note: `From mail ${row.id}` })
        if (list === 'allow' && canRelease(row)) await admin.release(author, params.id)
        const done =
          list === 'allow'
            ? 'is released, and its sender is allowed'
            : 'is kept, and its sender is blocked'
        flashes.add(guard.visitOf(request).session, `“${subjectOf(row.subject)}” ${done}: ${value}`)
        return seeOther(`/messages/${params.id}`)
      },
      { params: ID, body: t.Object({ list: t.Optional(t.String({ maxLength: 20 })) }) },
    )
    .get('/delete', ({ request, params, query }) => deletePage(site, request, params.id, query), {
      params: ID,
      query: WHOSE,
    })
    .post(
      '/delete',
      async ({ request, params, body }) => {
        const { session } = guard.visitOf(request)
        try {
          const before = admin.heldOne(params.id)
          const after = await admin.deleteHeld(guard.authorOf(request), params.id, body.recipient)
          const whose = body.recipient === undefined ? '' : ` of ${body.recipient}`
          const what = `“${subjectOf(before.row.subject)}”${whose}`
          flashes.add(
            session,
            isPending(after, 'delete', body.recipient)
              ? `Noted the deletion of ${what}; ${waitsFor(after)}`
              : `Deleted ${what}`,
          )
          return seeOther(safePath(body.back, `/messages/${params.id}`))
        } catch (error) {
          if (!isAnswer(error)) throw error
          return await messagePage(site, request, params.id, { refusal: error })
        }
      },
      { params: ID, body: WHOSE },
    )
}

const LABELS = { spam: 'spam', ham: 'wanted' } as const

/** Whom a list is about: the author that people see, else who sent it. */
function addressToList({ from, sender }: HeldDetail['row']): string {
  return addressesIn(from ?? '', 1)[0] ?? sender
}

/** Refusals that the page of the mail shows, with what can be done. */
function isAnswer(error: unknown): error is RefusalError {
  return error instanceof RefusalError && (error.code === 'conflict' || error.code === 'doubtful')
}

type About = {
  readonly view?: string | undefined
  readonly refusal?: RefusalError
  /** What today's rules say. */
  readonly again?: Judgement
}

async function messagePage(
  site: Site,
  request: Request,
  id: string,
  { view, refusal, again }: About,
): Promise<Response> {
  const { admin, clock } = site
  const visit = site.guard.visitOf(request)
  const detail = await admin.message(id)
  const held = detail.held !== null && detail.held.row.recipients.length > 0 ? detail.held : null
  const by = holders(site)
  const absent = held === null ? null : by.absence(held.row)
  const preview = held === null || absent !== null ? null : await previewOf(admin, id)
  const nowMs = clock.wallMs()
  const subject = subjectOf(detail.rows[0]?.subject ?? held?.row.subject ?? null)
  const mail =
    absent !== null
      ? absentCard(absent)
      : preview === null
        ? html`<section class="card" id="mail"><header><h2>Mail</h2></header><div class="body"><small>${detail.queue === null && detail.queuedOn === null ? 'Postern keeps only mail that is held or waits.' : 'Only held mail can be looked at.'}</small></div></section>`
        : await mailCard(admin, id, viewOf(view), preview)
  const main = html`<div class="head"><div class="title" hx-ignore><small><a href="/messages">Messages</a> / <span class="mono">${id}</span></small><h1>${subject}</h1></div>
${acts(visit, id, detail, held, detail.queue !== null && by.silence(detail.queue.owner) !== null)}</div>
${held === null || !mayAct(visit) ? '' : teach(visit, id, held)}
${refusal === undefined ? '' : note('warn', html`<b>${refusal.message}</b> ${refusal.advice}`, refusal.code === 'doubtful' && held?.waits == null ? anyway(visit, id) : null)}
${held === null ? '' : waitsNote(held.waits, nowMs, canRelease(held.row) ? anyway(visit, id) : null)}
${held === null ? '' : pendingNote(held.row, nowMs)}
${answer(detail, limitsOf(site), nowMs)}
<div class="main-aside"><div class="stack">
${again === undefined ? '' : againCard(detail, again)}
${whyCard(detail)}
${detail.rows.length > 1 ? recipientsCard(visit, id, detail, nowMs) : ''}
${mail}
</div><div class="stack">
${queueCard(detail, by, nowMs)}
${senderCard(detail)}
${contentCard(detail)}
${pathCard(detail, nowMs)}
${factsCard(detail, nowMs)}
${preview === null ? '' : hopsCard(preview)}
${preview === null ? '' : attachmentsCard(preview)}
</div></div>`
  return shell(site, visit, {
    title: subject,
    at: held === null ? 'messages' : 'quarantine',
    main,
    status: refusal === undefined ? 200 : 409,
  })
}

/** Where it could arrive twice the plain button would only be refused. */
function anyway(visit: Visit, id: string): Html | null {
  if (!mayAct(visit)) return null
  return act(visit, `/messages/${id}/release`, {
    words: 'Release anyway',
    kind: 'danger',
    fields: { anyway: 'yes' },
  })
}

function acts(
  visit: Visit,
  id: string,
  detail: MessageDetail,
  held: HeldDetail | null,
  silent: boolean,
): Html | '' {
  if (!mayAct(visit)) return ''
  if (held !== null) {
    const all = held.row.recipients.length > 1 ? ' to all' : ''
    return html`<div class="acts" id="acts">${!canRelease(held.row) || isDoubtful(held) ? '' : act(visit, `/messages/${id}/release`, { words: `Release${all}`, kind: 'primary' })}<a class="btn danger" href="/messages/${id}/delete">Delete</a></div>`
  }
  if (detail.queue !== null && !silent) {
    return html`<div class="acts" id="acts">${act(visit, `/queue/${id}/retry`, { words: 'Deliver now', kind: 'primary', fields: { back: `/messages/${id}` } })}<a class="btn danger" href="/queue/${id}/drop">Give up</a></div>`
  }
  return ''
}

/** What the mail teaches: the sender, the inspectors, and whether they would say the same today. */
function teach(visit: Visit, id: string, held: HeldDetail): Html {
  const who = addressToList(held.row)
  const button = (path: string, words: string, fields: Readonly<Record<string, string>>) =>
    act(visit, `/messages/${id}/${path}`, { words, small: true, fields })
  return html`<div class="acts" role="group" aria-label="Learn from this mail">${button('learn', 'Learn as spam', { as: 'spam' })}${button('learn', 'Learn as wanted', { as: 'ham' })}${who === '' ? '' : html`${canRelease(held.row) && !isDoubtful(held) ? button('list', 'Release and allow sender', { list: 'allow' }) : ''}${button('list', 'Block sender', { list: 'block' })}`}${button('again', 'Check again', {})}</div>`
}

/** Asks once more: what is deleted is gone. */
function deletePage(
  site: Site,
  request: Request,
  id: string,
  query: { readonly recipient?: string; readonly back?: string },
): Response {
  const visit = site.guard.visitOf(request)
  const { row } = site.admin.heldOne(id)
  const { recipient } = query
  const back = safePath(query.back, `/messages/${id}`)
  const whose = recipient ?? some(row.recipients, 5)
  const main = html`<div class="head"><h1>Delete this mail?</h1></div>
<form class="card" method="post" action="/messages/${id}/delete">${csrf(visit)}<input type="hidden" name="back" value="${back === `/messages/${id}` ? '/quarantine' : back}">${recipient === undefined ? '' : html`<input type="hidden" name="recipient" value="${recipient}">`}
<div class="body first stack" hx-ignore><p><b>${subjectOf(row.subject)}</b><br><span class="muted">from ${row.sender}</span></p><p>${whose} will not receive it. The sender is not told. This cannot be undone.</p>
<div class="acts"><button class="btn danger">Delete</button><a class="btn quiet" href="${back}">Keep it</a></div></div></form>`
  return shell(site, visit, { title: 'Delete a mail', at: 'quarantine', main })
}
