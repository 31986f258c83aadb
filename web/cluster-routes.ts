/** Routes of the API for the cluster: nodes, invitations, conflicts, API tokens, lists. */
import { t } from 'elysia'
import { RefusalError } from '../src/base/errors.ts'
import { type Call, optional, param, type Route, TEXT, text } from './route.ts'
import * as shape from './shapes.ts'
import type { Site } from './site.ts'
import * as wire from './wire.ts'

type Parts = Pick<Site, 'admin'>

export function clusterRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Cluster'
  const one = {
    tag,
    params: t.Object({ node: TEXT('Id or name of a node, or `self`', 300) }),
  } as const
  // `self` is the node that is asked.
  const nodeOf = (call: Call) => (param(call, 'node') === 'self' ? null : param(call, 'node'))
  return [
    {
      method: 'GET',
      path: '/cluster',
      summary: 'Nodes, links and what happened, as this node sees them',
      tag,
      answer: shape.CLUSTER,
      run: () => wire.clusterOf(admin.cluster(), admin.alarms()),
    },
    {
      method: 'POST',
      path: '/cluster/join',
      summary: 'Join the cluster that issued a token; this node must be new',
      tag,
      body: t.Object({
        token: TEXT('As `postern invite` prints it', 4_000),
        discard: t.Optional(
          t.Boolean({ description: 'Also with operators and domains of its own: they go' }),
        ),
      }),
      answer: shape.DONE,
      refuses: [409],
      run: async (call) => {
        await admin.join(call.author(), text(call, 'token'), call.body['discard'] === true)
        return { done: true }
      },
    },
    {
      method: 'POST',
      path: '/cluster/leave',
      summary: 'This node leaves for good',
      tag,
      body: t.Optional(
        t.Object({
          abandon: t.Optional(t.Boolean({ description: 'Also with mail that is only here' })),
        }),
      ),
      answer: shape.DONE,
      refuses: [409],
      run: async (call) => {
        await admin.leave(call.author(), call.body['abandon'] === true)
        return { done: true }
      },
    },
    {
      ...one,
      method: 'POST',
      path: '/nodes/:node/drain',
      summary: 'No new mail for it; it hands its queue to the others',
      answer: shape.DONE,
      refuses: [404],
      run: async (call) => {
        await admin.drain(call.author(), nodeOf(call))
        return { done: true }
      },
    },
    {
      ...one,
      method: 'POST',
      path: '/nodes/:node/undrain',
      summary: 'It takes mail again',
      answer: shape.DONE,
      refuses: [404],
      run: async (call) => {
        await admin.undrain(call.author(), nodeOf(call))
        return { done: true }
      },
    },
    {
      ...one,
      method: 'DELETE',
      path: '/nodes/:node',
      summary: 'Remove a dead or stolen node: its keys are refused everywhere from now on',
      answer: shape.DROPPED_NODE,
      refuses: [404, 409],
      run: (call) => admin.removeNode(call.author(), param(call, 'node')),
    },
    {
      method: 'GET',
      path: '/invitations',
      summary: 'Tokens that were made on this node, without their secrets',
      tag,
      answer: shape.list(shape.ISSUED),
      run: () => wire.listOf(admin.invitations().map(wire.issuedOf)),
    },
    {
      method: 'POST',
      path: '/invitations',
      summary: 'Make a token for a new node; it is given once',
      tag,
      body: t.Optional(
        t.Object({
          minutes: t.Optional(t.Integer({ description: '1 to 1440; 15 when absent' })),
          uses: t.Optional(t.Integer({ description: '1 to 100; 1 when absent' })),
          name: t.Optional(t.Union([TEXT('Name of the new node', 200), t.Null()])),
          replaces: t.Optional(
            t.Union([TEXT('Id or name of a node that is gone and is removed then', 300), t.Null()]),
          ),
        }),
      ),
      answer: shape.INVITATION,
      refuses: [404],
      run: (call) => {
        // The schema above let only these types through.
        const input = call.body as Parameters<typeof admin.invite>[1]
        return wire.invitationOf(admin.invite(call.author(), input))
      },
    },
    {
      method: 'DELETE',
      path: '/invitations/:id',
      summary: 'Revoke a token',
      tag,
      params: t.Object({ id: TEXT('Id of the token', 100) }),
      answer: shape.DONE,
      refuses: [404, 409],
      run: (call) => {
        admin.revokeInvitation(call.author(), param(call, 'id'))
        return { done: true }
      },
    },
  ]
}

export function conflictRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Conflicts'
  return [
    {
      method: 'GET',
      path: '/conflicts',
      summary: 'What was set twice while nodes were apart',
      tag,
      answer: shape.list(shape.CONFLICT),
      run: () => wire.listOf(admin.conflicts().map(wire.conflictOf)),
    },
    {
      method: 'POST',
      path: '/conflicts/keep',
      summary: 'Keep one of the values, on all nodes',
      tag,
      body: t.Object({
        key: TEXT('Key of the conflict'),
        side: TEXT('Id of the side to keep', 200),
      }),
      answer: shape.DONE,
      refuses: [404, 409],
      run: (call) => {
        admin.keep(call.author(), text(call, 'key'), text(call, 'side'))
        return { done: true }
      },
    },
  ]
}

export function tokenRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'API tokens'
  return [
    {
      method: 'GET',
      path: '/tokens',
      summary: 'API tokens, without their secrets',
      tag,
      answer: shape.list(shape.API_TOKEN),
      run: () => wire.listOf(admin.apiTokens().map(wire.apiTokenOf)),
    },
    {
      method: 'POST',
      path: '/tokens',
      summary: 'Make an API token; it is given once',
      tag,
      body: t.Object({
        name: TEXT('What it is for', 200),
        role: t.Optional(TEXT('admin or viewer; viewer when absent', 20)),
        days: t.Optional(t.Union([t.Integer({ description: 'Null: no end' }), t.Null()])),
      }),
      answer: shape.NEW_API_TOKEN,
      refuses: [409],
      run: (call) => {
        const days = call.body['days']
        const { token, row } = admin.addApiToken(call.author(), {
          name: text(call, 'name'),
          role: optional(call, 'role') ?? 'viewer',
          days: typeof days === 'number' ? days : null,
        })
        return { token, row: wire.apiTokenOf(row) }
      },
    },
    {
      method: 'DELETE',
      path: '/tokens/:id',
      summary: 'Revoke an API token on all nodes',
      tag,
      params: t.Object({ id: TEXT('Id of the token', 100) }),
      answer: shape.DONE,
      refuses: [404],
      run: (call) => {
        admin.removeApiToken(call.author(), param(call, 'id'))
        return { done: true }
      },
    },
  ]
}

export function banRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Lists'
  return [
    {
      tag,
      method: 'GET',
      path: '/bans',
      summary: 'Networks that are refused because they guess recipients',
      answer: shape.list(shape.BAN),
      run: () => wire.listOf(admin.bans().map(wire.banOf)),
    },
    {
      tag,
      method: 'DELETE',
      path: '/bans/:network',
      summary: 'Let a network in again, on all nodes',
      params: t.Object({ network: TEXT('The network, URL-encoded') }),
      answer: shape.DONE,
      refuses: [404],
      run: (call) => {
        admin.liftBan(call.author(), param(call, 'network'))
        return { done: true }
      },
    },
  ]
}

export function listRoutes({ admin }: Parts): readonly Route[] {
  const tag = 'Lists'
  const LIST = TEXT('allow or block', 20)
  const one = { tag, path: '/lists/:list', params: t.Object({ list: LIST }) } as const
  return [
    {
      ...one,
      method: 'GET',
      summary: 'Entries of a list',
      answer: shape.list(shape.ENTRY),
      refuses: [404],
      run: (call) => {
        const list = param(call, 'list')
        if (list !== 'allow' && list !== 'block') {
          throw new RefusalError(
            'notFound',
            'list',
            `There is no list "${list}".`,
            'Use allow or block.',
          )
        }
        return wire.listOf(admin.listEntries(list).map(wire.entryOf))
      },
    },
    {
      ...one,
      method: 'POST',
      summary: 'Add an entry, on all nodes',
      body: t.Object({
        kind: TEXT('ip: an address or network; sender: an address or @domain', 20),
        value: TEXT('The address, network or domain'),
        note: t.Optional(TEXT('Why', 2_000)),
      }),
      answer: shape.ENTRY,
      run: (call) =>
        wire.entryOf(
          admin.addListEntry(call.author(), {
            list: param(call, 'list'),
            kind: text(call, 'kind'),
            value: text(call, 'value'),
            note: text(call, 'note'),
          }),
        ),
    },
    {
      tag,
      method: 'DELETE',
      path: '/lists/:list/:kind/:value',
      summary: 'Remove an entry, on all nodes',
      params: t.Object({
        list: LIST,
        kind: TEXT('ip or sender', 20),
        value: TEXT('The entry, URL-encoded'),
      }),
      answer: shape.DONE,
      refuses: [404],
      run: (call) => {
        const [list, kind, value] = [param(call, 'list'), param(call, 'kind'), param(call, 'value')]
        admin.removeListEntry(call.author(), list, kind, value)
        return { done: true }
      },
    },
  ]
}
