/** /api/v1: the data and the acts of the pages, for scripts and for the commands. */
import { Elysia } from 'elysia'
import { apiRoutes } from './api-routes.ts'
import { documentOf } from './openapi.ts'
import type { Call } from './route.ts'
import type { Site } from './site.ts'

export const API = '/api/v1'

export function api(site: Site, version: string) {
  const { guard } = site
  const routes = apiRoutes(site)
  const app = new Elysia({ prefix: API })
  const document = documentOf(routes, version)
  for (const route of routes) {
    app.route(
      route.method,
      route.path,
      async ({ request, params, query, body }) => {
        const visit = guard.visitOf(request)
        const answer = await route.run({
          params: (params ?? {}) as Call['params'],
          query: (query ?? {}) as Call['query'],
          body: (body ?? {}) as Call['body'],
          visit,
          author: () => guard.authorOf(request),
        })
        return answer instanceof Response ? answer : Response.json(answer)
      },
      {
        ...(route.params === undefined ? {} : { params: route.params }),
        ...(route.query === undefined ? {} : { query: route.query }),
        ...(route.body === undefined ? {} : { body: route.body }),
      },
    )
  }
  return app.get('/openapi.json', () => Response.json(document))
}
