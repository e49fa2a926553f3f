//! Questions that are answered and never stored: who am I, may I, is this token good.

use crate::resource::Resource;

const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    schema: &'static str,
) -> Resource {
    Resource { group, kind, plural, singular, schema, namespaced: false, verbs: &["create"], ..Resource::BASE }
}

pub(super) const TOKEN_REVIEW: Resource = review(
    "authentication.k8s.io",
    "TokenReview",
    "tokenreviews",
    "tokenreview",
    "io.k8s.api.authentication.v1.TokenReview",
);
pub(super) const SELF_SUBJECT_REVIEW: Resource = review(
    "authentication.k8s.io",
    "SelfSubjectReview",
    "selfsubjectreviews",
    "selfsubjectreview",
    "io.k8s.api.authentication.v1.SelfSubjectReview",
);
pub(super) const LOCAL_SUBJECT_ACCESS_REVIEW: Resource = Resource {
    namespaced: true,
    ..review(
        "authorization.k8s.io",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    )
};
pub(super) const SELF_SUBJECT_ACCESS_REVIEW: Resource = review(
    "authorization.k8s.io",
    "SelfSubjectAccessReview",
    "selfsubjectaccessreviews",
    "selfsubjectaccessreview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
);
pub(super) const SELF_SUBJECT_RULES_REVIEW: Resource = review(
    "authorization.k8s.io",
    "SelfSubjectRulesReview",
    "selfsubjectrulesreviews",
    "selfsubjectrulesreview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
);
pub(super) const SUBJECT_ACCESS_REVIEW: Resource = review(
    "authorization.k8s.io",
    "SubjectAccessReview",
    "subjectaccessreviews",
    "subjectaccessreview",
    "io.k8s.api.authorization.v1.SubjectAccessReview",
);
