/** OpenAPI 3.1 of the API, made of the same table that makes its routes. */
import type { Route } from './route.ts'
import { ERROR } from './shapes.ts'

type Json = { readonly [key: string]: unknown }

/** A document of plain JSON. */
export function documentOf(routes: readonly Route[], version: string): Json {
  const paths: Record<string, Record<string, Json>> = {}
  for (const route of routes) {
    const path = `/api/v1${route.path.replace(/:(\w+)/g, '{$1}')}`
    paths[path] ??= {}
    paths[path][route.method.toLowerCase()] = operationOf(route)
  }
  paths['/api/v1/openapi.json'] = {
    get: {
      operationId: 'getOpenapi',
      summary: 'This document',
      tags: ['Node'],
      security: [],
      responses: { '200': { description: 'OpenAPI 3.1', content: json({ type: 'object' }) } },
    },
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Postern',
      version,
      description:
        'Times are ISO 8601 UTC. Lists are newest first, at most 1000 rows, and go on with cursor. Keys never change their meaning; new ones may come.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    security: [{ session: [] }, { token: [] }],
    tags: [...new Set(routes.map(({ tag }) => tag))].map((name) => ({ name })),
    paths,
    components: {
      securitySchemes: {
        session: {
          type: 'apiKey',
          in: 'cookie',
          name: '__Host-postern',
          description:
            'Set by POST /api/v1/login. Every other method than GET also needs the header X-CSRF-Token. The control socket needs neither.',
        },
        token: {
          type: 'http',
          scheme: 'bearer',
          description: 'An API token, made by POST /api/v1/tokens. Nothing else is needed.',
        },
      },
      schemas: { Error: plain(ERROR) },
    },
  }
}

function operationOf(route: Route): Json {
  const acts = route.method !== 'GET'
  const statuses = new Set([
    400,
    ...(route.open === true ? [] : [401]),
    ...(acts ? [403] : []),
    ...(route.refuses ?? []),
    503,
  ])
  const refusals = [...statuses].sort().map((status) => [String(status), refusal(status)])
  const ok =
    route.answer === null
      ? { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } }
      : json(plain(route.answer))
  const body = route.body === undefined ? null : plain(route.body)
  return {
    operationId: nameOf(route),
    summary: route.summary,
    tags: [route.tag],
    ...(route.open === true ? { security: [] } : {}),
    parameters: [...parametersOf('path', route.params), ...parametersOf('query', route.query)],
    ...(body === null
      ? {}
      : {
          requestBody: {
            required: Array.isArray(body['required']) && body['required'].length > 0,
            content: json(body),
          },
        }),
    responses: {
      '200': { description: 'Done', content: ok },
      ...(route.accepts === true
        ? { '202': { description: 'Noted; done when its node answers', content: ok } }
        : {}),
      ...Object.fromEntries(refusals),
    },
  }
}

/** `postQuarantineRelease`. */
function nameOf({ method, path }: Route): string {
  const words = path.split('/').filter((word) => word !== '')
  const name = words.map((word) => {
    const text = word
      .replace(/^:/, 'by-')
      .replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())
    return text.charAt(0).toUpperCase() + text.slice(1)
  })
  return method.toLowerCase() + name.join('')
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'Invalid: the field and what to do',
  401: 'Nobody is signed in',
  403: 'Without token, or the role may not',
  404: 'Not there',
  409: 'Somebody was first',
  429: 'Locked for a while',
  503: 'Cannot do it now',
}

function refusal(status: number): Json {
  return {
    description: REASONS[status] ?? 'Refused',
    content: json({ $ref: '#/components/schemas/Error' }),
  }
}

function json(schema: Json): Json {
  return { 'application/json': { schema } }
}

function parametersOf(place: 'path' | 'query', schema: object | undefined): readonly Json[] {
  if (schema === undefined) return []
  const { properties = {}, required = [] } = plain(schema) as {
    readonly properties?: Readonly<Record<string, Json>>
    readonly required?: readonly string[]
  }
  return Object.entries(properties).map(([name, { description, ...one }]) => ({
    name,
    in: place,
    required: place === 'path' || required.includes(name),
    ...(description === undefined ? {} : { description }),
    schema: one,
  }))
}

/** A schema as plain JSON; numbers in a query arrive as text and are described as numbers. */
function plain(schema: object): Json {
  const text = JSON.stringify(schema, (key, value: unknown) => {
    if (key.startsWith('x-')) return undefined
    if (typeof value !== 'object' || value === null || !('x-type' in value)) return value
    const { 'x-type': type, maxLength: _, ...rest } = value as Record<string, unknown>
    return { ...rest, type }
  })
  return JSON.parse(text) as Json
}
