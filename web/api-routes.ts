/** Every route of the API once: path, schemas, what it does. OpenAPI is made of the same table. */
import { t } from 'elysia'
import type { HeldDetail, SearchQuery } from '../src/admin/contract.ts'
import { RefusalError } from '../src/base/errors.ts'
import {
  banRoutes,
  clusterRoutes,
  conflictRoutes,
  listRoutes,
  tokenRoutes,
} from './cluster-routes.ts'
import { detectionRoutes } from './detection-routes.ts'
import { learningRoutes } from './learning-routes.ts'
import { sourceOf } from './pages/frame.ts'
import { isPending } from './parts/holder.ts'
import { type Call, limitOf, optional, param, type Route, TEXT, text } from './route.ts'
import * as shape from './shapes.ts'
import { signingRoutes } from './signing-routes.ts'
import type { Site } from './site.ts'
import * as wire from './wire.ts'

const ID = t.Object({ id: TEXT('Message id, 26 characters', 64) })
const NAME = t.Object({ name: TEXT('Name', 300) })
const PAGED = {
  limit: t.Optional(
    t.String({ description: 'Rows of one answer, 1 to 1000', maxLength: 20, 'x-type': 'integer' }),
  ),
  cursor: t.Optional(TEXT('The cursor of the answer before', 200)),
}
const SEARCHED = t.Object({
  ...PAGED,
  q: t.Optional(TEXT('Query, as in the search box of the pages')),
})
const RECIPIENT = t.Optional(TEXT('This recipient only; all undecided ones when absent', 400))
const WHOSE = t.Optional(t.Object({ recipient: RECIPIENT }))
const RELEASE = t.Optional(
  t.Object({
    recipient: RECIPIENT,
    anyway: t.Optional(
      t.Boolean({
        description: 'Also when it may have been released before: it could arrive twice',
      }),
    ),
  }),
)

/** What the routes need of the site. */
type Parts = Pick<Site, 'admin' | 'clock' | 'guard'>

export function apiRoutes(site: Parts): readonly Route[] {
  return [
    ...entryRoutes(site),
    ...nodeRoutes(site),
    ...quarantineRoutes(site),
    ...queueRoutes(site),
    ...traceRoutes(site),
    ...domainRoutes(site),
    ...settingRoutes(site),
    ...operatorRoutes(site),
    ...clusterRoutes(site),
    ...conflictRoutes(site),
    ...tokenRoutes(site),
    ...listRoutes(site),
    ...banRoutes(site),
    ...detectionRoutes(site),
    ...signingRoutes(site),
    ...learningRoutes(site),
  ]
}

function searchOf({ query }: Call): SearchQuery {
  return { text: query['q'] ?? '', limit: limitOf(query['limit']), cursor: query['cursor'] ?? null }
}

function entryRoutes({ admin, guard }: Parts): readonly Route[] {
  const tag = 'Sign-in'
  return [
    {
      method: 'POST',
      path: '/login',
      summary: 'Sign in: sets the session cookie; send `csrf` as X-CSRF-Token with every change',
      tag,
      open: true,
      body: t.Object({ name: TEXT('Operator', 200), password: TEXT('Password') }),
      answer: shape.LOGIN,
      refuses: [401, 429],
      run: async (call) => {
        const { ip } = call.visit.client
        const { session, author } = await admin.login(
          text(call, 'name'),
          text(call, 'password'),
          ip,
        )
        return Response.json(
          { ...author, csrf: guard.token(session) },
          { headers: { 'set-cookie': guard.cookie(session) } },
        )
      },
    },
    {
      method: 'POST',
      path: '/logout',
      summary: 'End the session',
      tag,
      answer: shape.DONE,
      run: ({ visit }) => {
        if (visit.session !== null) admin.logout(visit.session)
        return Response.json({ done: true }, { headers: { 'set-cookie': guard.goodbye() } })
      },
    },
    {
      method: 'GET',
      path: '/setup',
      summary: 'Is the set-up still open?',
      tag,
      open: true,
      answer: t.Object({ needed: t.Boolean() }),
      run: () => ({ needed: admin.needsSetup() }),
    },
    {
      method: 'POST',
      path: '/setup',
      summary: 'Add the first operator with the one-time code; closes the set-up for good',
      tag,
      open: true,
      body: t.Object({
        code: TEXT('The code that serve printed', 200),
        name: TEXT('Operator', 200),
        password: TEXT('Password'),
      }),
      answer: shape.DONE,
      refuses: [403, 409, 429],
      run: async (call) => {
        await admin.setup({
          code: text(call, 'code'),
          name: text(call, 'name'),
          password: text(call, 'password'),
          clientIp: call.visit.client.ip,
        })
        return { done: true }
      },
    },
  ]
}

function nodeRoutes({ admin, clock }: Parts): readonly Route[] {
  const tag = 'Node'
  return [
    {
      method: 'GET',
      path: '/status',
      summary: 'What this node is doing, and whether it is ready',
      tag,
      answer: shape.STATUS,
      run: () => ({
        ...wire.statusOf(admin.status()),
        alerts: admin.alerts().map(wire.alertOf),
      }),
    },
    {
      method: 'GET',
      path: '/alerts',
      summary: 'What somebody should look at, the worst first; empty when all is well',
      tag,
      answer: shape.list(shape.ALERT),
      run: () => wire.listOf(admin.alerts().map(wire.alertOf)),
    },
    {
      method: 'GET',
      path: '/overview',
      summary: 'Counts, a series and top lists of the last hours',
      tag,
      query: t.Object({
        hours: t.Optional(
          t.String({ description: '1 to 8760', maxLength: 10, 'x-type': 'integer' }),
        ),
        buckets: t.Optional(
          t.String({ description: '1 to 500', maxLength: 10, 'x-type': 'integer' }),
        ),
      }),
      answer: shape.OVERVIEW,
      run: ({ query }) => {
        const hours = between('hours', query['hours'], { least: 1, most: 8_760, otherwise: 24 })
        const buckets = between('buckets', query['buckets'], { least: 1, most: 500, otherwise: 48 })
        return wire.overviewOf(admin.overview(clock.wallMs() - hours * 3_600_000, buckets))
      },
    },
  ]
}

type Bounds = { readonly least: number; readonly most: number; readonly otherwise: number }

function between(
  field: string,
  given: string | undefined,
  { least, most, otherwise }: Bounds,
): number {
  if (given === undefined) return otherwise
  const value = /^\d{1,6}$/.test(given) ? Number(given) : Number.NaN
  if (value >= least && value <= most) return value
  throw new RefusalError(
    'invalid',
    field,
    `${field} "${given}" is out of range.`,
    `Give ${least} to ${most}.`,
  )
}

function quarantineRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Quarantine'
  /** 202: noted, and done when the node that has the mail answers. */
  const decided = (detail: HeldDetail, kind: 'release' | 'delete', recipient?: string) =>
    Response.json(wire.heldDetailOf(detail), {
      status: isPending(detail, kind, recipient) ? 202 : 200,
    })
  const one = { tag, params: ID, refuses: [404] } as const
  return [
    {
      method: 'GET',
      path: '/quarantine',
      summary: 'What is held now, newest first',
      tag,
      query: SEARCHED,
      answer: shape.list(shape.HELD, shape.WORDS),
      run: (call) => {
        const found = admin.held(searchOf(call))
        const rows = found.rows.map(wire.heldOf)
        return { ...wire.listOf(rows, found), words: found.words, mistakes: found.mistakes }
      },
    },
    {
      ...one,
      method: 'GET',
      path: '/quarantine/:id',
      summary: 'One held message with the decisions about it',
      answer: shape.HELD_DETAIL,
      run: (call) => wire.heldDetailOf(admin.heldOne(param(call, 'id'))),
    },
    {
      ...one,
      method: 'GET',
      path: '/quarantine/:id/preview',
      summary: 'Text, headers, attachments and sanitised markup; still a stranger’s words',
      answer: shape.PREVIEW,
      run: (call) => admin.heldPreview(param(call, 'id')),
    },
    {
      ...one,
      method: 'GET',
      path: '/quarantine/:id/again',
      summary: 'What the rules of today say of it; nothing changes',
      answer: shape.JUDGEMENT,
      run: (call) => admin.heldAgain(param(call, 'id')),
    },
    {
      ...one,
      method: 'GET',
      path: '/quarantine/:id/source',
      summary: 'The message as it was received, as application/octet-stream',
      answer: null,
      run: (call) => sourceOf(admin, param(call, 'id')),
    },
    {
      ...one,
      method: 'POST',
      path: '/quarantine/:id/release',
      summary: 'Release once; answers when it is in the queue',
      accepts: true,
      body: RELEASE,
      answer: shape.HELD_DETAIL,
      refuses: [404, 409],
      run: async (call) => {
        const id = param(call, 'id')
        const recipient = optional(call, 'recipient')
        const anyway = call.body['anyway'] === true
        const detail = await admin.release(call.author(), id, recipient, anyway)
        return decided(detail, 'release', recipient)
      },
    },
    {
      ...one,
      method: 'POST',
      path: '/quarantine/:id/delete',
      summary: 'Delete',
      accepts: true,
      body: WHOSE,
      answer: shape.HELD_DETAIL,
      refuses: [404, 409],
      run: async (call) => {
        const id = param(call, 'id')
        const recipient = optional(call, 'recipient')
        const detail = await admin.deleteHeld(call.author(), id, recipient)
        return decided(detail, 'delete', recipient)
      },
    },
  ]
}

function queueRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Queue'
  return [
    {
      method: 'GET',
      path: '/queue',
      summary: 'What waits for delivery on all nodes, newest first',
      tag,
      query: t.Object({
        ...PAGED,
        alone: t.Optional(TEXT('true: only mail of which no other node has a copy', 5)),
      }),
      answer: shape.list(shape.QUEUED, shape.SILENT),
      run: async ({ query }) => {
        const found = await admin.queue({
          limit: limitOf(query['limit']),
          cursor: query['cursor'] ?? null,
          alone: query['alone'] === 'true',
        })
        return { ...wire.listOf(found.rows.map(wire.queueOf), found), silent: found.silent }
      },
    },
    {
      method: 'GET',
      path: '/queue/:id',
      summary: 'One waiting message',
      tag,
      params: ID,
      answer: shape.QUEUED,
      refuses: [404],
      run: async (call) => {
        const { queue } = await admin.message(param(call, 'id'))
        if (queue !== null) return wire.queueOf(queue)
        throw new RefusalError(
          'notFound',
          'id',
          'This mail does not wait in the queue.',
          'Its trace says where it is.',
        )
      },
    },
    {
      method: 'POST',
      path: '/queue/retry',
      summary: 'Make everything due now, on all nodes',
      tag,
      answer: shape.RETRIED,
      run: (call) => admin.retry(call.author(), null),
    },
    {
      method: 'POST',
      path: '/queue/:id/retry',
      summary: 'Make one message due now',
      tag,
      params: ID,
      answer: shape.RETRIED,
      refuses: [404],
      run: (call) => admin.retry(call.author(), param(call, 'id')),
    },
    {
      method: 'POST',
      path: '/queue/:id/drop',
      summary: 'Give up on a message',
      tag,
      params: ID,
      body: t.Optional(
        t.Object({ bounce: t.Optional(t.Boolean({ description: 'Tell the sender' })) }),
      ),
      answer: shape.DONE,
      refuses: [404],
      run: async (call) => {
        await admin.drop(call.author(), param(call, 'id'), call.body['bounce'] === true)
        return { done: true }
      },
    },
  ]
}

function traceRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Trace'
  return [
    {
      method: 'GET',
      path: '/trace',
      summary: 'Every message and recipient, newest first',
      tag,
      query: SEARCHED,
      answer: shape.list(shape.TRACED, shape.WORDS),
      run: (call) => {
        const found = admin.search(searchOf(call))
        const rows = found.rows.map(wire.traceOf)
        return { ...wire.listOf(rows, found), words: found.words, mistakes: found.mistakes }
      },
    },
    {
      method: 'GET',
      path: '/trace/:id',
      summary: 'Everything known about one message',
      tag,
      params: ID,
      answer: shape.MESSAGE,
      refuses: [404],
      run: async (call) => wire.messageOf(await admin.message(param(call, 'id'))),
    },
  ]
}

function domainRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Domains'
  const one = { tag, path: '/domains/:name', params: NAME } as const
  return [
    {
      method: 'GET',
      path: '/domains',
      summary: 'All domains by name',
      tag,
      answer: shape.list(shape.DOMAIN),
      run: () => wire.listOf(admin.domains().map(wire.domainOf)),
    },
    {
      ...one,
      method: 'GET',
      summary: 'One domain',
      answer: shape.DOMAIN,
      refuses: [404],
      run: (call) => {
        const name = param(call, 'name').toLowerCase()
        const found = admin.domains().find((domain) => domain.name === name)
        if (found !== undefined) return wire.domainOf(found)
        throw new RefusalError(
          'notFound',
          'name',
          `There is no domain ${name}.`,
          'List them with GET /api/v1/domains.',
        )
      },
    },
    {
      ...one,
      method: 'PUT',
      summary: 'Add or replace; absent fields keep their value',
      body: t.Optional(
        t.Object({
          nextHops: t.Optional(
            t.Array(TEXT('smtp://HOST:PORT or lmtp://HOST:PORT', 300), { maxItems: 100 }),
          ),
          recipients: t.Optional(t.Union([t.Array(TEXT('Local part', 400)), t.Null()])),
          hold: t.Optional(t.Union([t.Number(), t.Null()])),
          reject: t.Optional(t.Union([t.Number(), t.Null()])),
          enforce: t.Optional(t.Union([t.Boolean(), t.Null()])),
        }),
      ),
      answer: shape.DOMAIN,
      run: (call) => {
        // The schema above let only these types through.
        const input = call.body as Parameters<typeof admin.putDomain>[2]
        return wire.domainOf(admin.putDomain(call.author(), param(call, 'name'), input))
      },
    },
    {
      ...one,
      method: 'DELETE',
      summary: 'Remove, with the keys that sign its mail: its mail is refused from then on',
      answer: shape.REMOVED,
      refuses: [404],
      run: (call) => {
        admin.removeDomain(call.author(), param(call, 'name'))
        return { name: param(call, 'name'), removed: true }
      },
    },
    {
      method: 'POST',
      path: '/probe',
      summary: 'Try a next hop: connect, greeting, EHLO, QUIT',
      tag,
      body: t.Object({ hop: TEXT('smtp://HOST:PORT or lmtp://HOST:PORT', 300) }),
      answer: t.Object({ hop: t.String(), ok: t.Boolean(), answer: t.String() }),
      run: (call) => admin.probeNextHop(text(call, 'hop')),
    },
  ]
}

function settingRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Settings'
  const one = {
    tag,
    path: '/settings/:key',
    params: t.Object({ key: TEXT('As `policy.hold`', 100) }),
    refuses: [404],
  } as const
  return [
    {
      method: 'GET',
      path: '/settings',
      summary: 'All settings',
      tag,
      answer: shape.list(shape.SETTING),
      run: () => wire.listOf(admin.settings().map(wire.settingOf)),
    },
    {
      ...one,
      method: 'GET',
      summary: 'One setting',
      answer: shape.SETTING,
      run: (call) => wire.settingOf(admin.setting(param(call, 'key'))),
    },
    {
      ...one,
      method: 'PUT',
      summary: 'Set; answers when it is in force here',
      body: t.Object({ value: t.Unknown({ description: 'As JSON of its kind, or as text' }) }),
      answer: shape.SETTING,
      run: (call) => {
        const value = call.body['value']
        if (value === undefined) {
          throw new RefusalError('invalid', 'value', 'value is missing.', 'Send {"value": …}.')
        }
        return wire.settingOf(admin.setSetting(call.author(), param(call, 'key'), value))
      },
    },
    {
      method: 'GET',
      path: '/changes',
      summary: 'Who changed what, newest first',
      tag,
      query: t.Object({ limit: PAGED.limit }),
      answer: shape.list(shape.CHANGE),
      run: ({ query }) => wire.listOf(admin.changes(limitOf(query['limit'])).map(wire.changeOf)),
    },
    {
      method: 'POST',
      path: '/changes/:id/undo',
      summary: 'Put back what was before, as a change of its own',
      tag,
      params: t.Object({ id: TEXT('Id of the change', 200) }),
      answer: shape.UNDONE,
      refuses: [404, 409],
      run: (call) => {
        const key = admin.undoChange(call.author(), param(call, 'id'))
        return { done: true, key }
      },
    },
  ]
}

function operatorRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Operators'
  return [
    {
      method: 'GET',
      path: '/operators',
      summary: 'Who may sign in',
      tag,
      answer: shape.list(shape.OPERATOR),
      run: () => wire.listOf(admin.operators().map(wire.operatorOf)),
    },
    {
      method: 'POST',
      path: '/operators',
      summary: 'Add an operator',
      tag,
      body: t.Object({
        name: TEXT('Name', 200),
        password: TEXT('Password'),
        role: t.Optional(TEXT('admin or viewer', 20)),
      }),
      answer: t.Object({ name: t.String(), role: t.String() }),
      refuses: [409],
      run: async (call) => {
        const [name, role] = [text(call, 'name'), optional(call, 'role') ?? 'admin']
        await admin.addOperator(call.author(), name, text(call, 'password'), role)
        return { name, role }
      },
    },
    {
      method: 'PUT',
      path: '/operators/:name/password',
      summary: 'Change a password; ends the sessions of the operator',
      tag,
      params: NAME,
      body: t.Object({ password: TEXT('Password') }),
      answer: shape.DONE,
      refuses: [404],
      run: async (call) => {
        await admin.changePassword(call.author(), param(call, 'name'), text(call, 'password'))
        return { done: true }
      },
    },
    {
      method: 'DELETE',
      path: '/operators/:name',
      summary: 'Remove an operator',
      tag,
      params: NAME,
      answer: shape.REMOVED,
      refuses: [404, 409],
      run: (call) => {
        admin.removeOperator(call.author(), param(call, 'name'))
        return { name: param(call, 'name'), removed: true }
      },
    },
  ]
}
